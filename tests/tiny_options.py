"""The options of a run small enough to train in a second."""

from typing import Any

TINY_OPTIONS: dict[str, Any] = dict(
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
