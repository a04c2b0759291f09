"""A run small enough to train in a second."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState, GradientState

from pix2pix_hub.config import TrainingConfig, preset_config

TINY: dict[str, Any] = dict(
    image_size="32",
    base_channels=4,
    num_downs=3,
    max_train_pairs=6,
    max_validation_pairs=3,
    batch_size=2,
    epochs=2,
    num_workers=0,
    cpu_threads=1,
    log_every=1,
    sample_count=2,
    mixed_precision="no",
)


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps its state in singletons; a test gets its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., TrainingConfig]:
    """`tiny(option=value, …)` → config of a run in the test's own folder."""
    return lambda **options: preset_config("demo", **(TINY | {"output_dir": str(tmp_path / "run")} | options))
