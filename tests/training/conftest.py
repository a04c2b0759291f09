"""A run small enough to train in a second."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState
from run_results import Tiny, train
from tiny_options import TINY_OPTIONS

from pix2pix_hub.config import preset_config


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps its state in singletons; a test gets its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    """`tiny(option=value, …)` → config of a run in the test's own folder."""
    return lambda **options: preset_config("demo", **(TINY_OPTIONS | {"output_dir": str(tmp_path / "run")} | options))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with `tiny`'s options, 2 epochs of 3 steps; to be looked at, or copied."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return train(preset_config("demo", **TINY_OPTIONS, output_dir=str(folder))).run_folder
