"""A run trained for a moment, and what its export scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState
from known_generators import PAIRS, SIZE
from PIL import Image

from pix2pix_hub.config import preset_config
from pix2pix_hub.synthetic import render_pair
from pix2pix_hub.training.trainer import Pix2PixTrainer


@pytest.fixture(autouse=True)
def _fresh_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Accelerate keeps its state in singletons; a test gets its own, and its own caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    _forget_accelerate()


def _forget_accelerate() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of side-by-side façades: label map left, photo right."""
    folder = tmp_path_factory.mktemp("sets") / "facades"
    for split, first, count in (("train", 0, 12), ("val", 10_000, PAIRS)):
        (folder / split).mkdir(parents=True)
        for number in range(first, first + count):
            whole = Image.new("RGB", (2 * SIZE, SIZE))
            for place, half in enumerate(render_pair(number, (SIZE, SIZE))):
                whole.paste(half, (place * SIZE, 0))
            whole.save(folder / split / f"{number:05}.png")
    return folder


@pytest.fixture(scope="session")
def run(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on `pairs`."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    config = preset_config(
        "demo", dataset=str(pairs), image_size=str(SIZE), base_channels=4, num_downs=3, batch_size=3, epochs=2,
        num_workers=0, cpu_threads=1, sample_count=1, mixed_precision="no", output_dir=str(folder),
    )  # fmt: skip
    Pix2PixTrainer(config).train()
    _forget_accelerate()
    return folder
