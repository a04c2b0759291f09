"""What a training step asks of a GPU, on a stand-in for CUDA that computes nothing and counts what it is asked for.

The stand-in is not part of the repository: it is loaded before Python starts, and its module `count` says what a block
of code asked for. No value means anything here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from pix2pix_hub.config import preset_config
from pix2pix_hub.training.setup import Learner, make_accelerator, make_learner

count = pytest.importorskip("count", reason="no stand-in for CUDA is loaded, whose module this is").count


def learner(preset: str, folder: Path, batch_size: int = 1, **options) -> Learner:
    """At an eighth of the networks' width, which changes no count."""
    options = dict(mixed_precision="bf16", base_channels=8, perceptual_weight=0.0) | options
    config = preset_config(preset, batch_size=batch_size, **options)
    made = make_learner(make_accelerator(config, folder), config, 3, 3, total_steps=1000)
    made.generator.train()
    made.discriminator.train()
    return made


@pytest.fixture
def waiting_fails() -> Iterator[Callable[[], None]]:
    """Once called, torch raises where it would wait for the device."""
    yield partial(torch.cuda.set_sync_debug_mode, "error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("preset", "launches"), [("paper", 500), ("default", 600), ("strong", 720)])
def test_an_eager_step_waits_for_nothing_and_sends_nothing(
    preset: str, launches: int, tmp_path: Path, waiting_fails: Callable[[], None]
) -> None:
    step = learner(preset, tmp_path, compile="off").step
    batch = torch.empty(2, 1, 3, 256, 256, device="cuda")
    step(*batch)
    waiting_fails()
    with count() as asked:
        step(*batch)
    assert (asked.syncs, asked.h2d, asked.d2h, asked.graphs) == (0, 0, 0, 0)
    assert asked.launches <= launches


@pytest.mark.parametrize("preset", ["paper", "default", "strong"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_steps_of_one_shape_become_one_replay_each(
    preset: str, batch_size: int, tmp_path: Path, waiting_fails: Callable[[], None]
) -> None:
    step = learner(preset, tmp_path, batch_size).step
    batch = torch.empty(2, batch_size, 3, 256, 256, device="cuda")
    for _ in range(3):
        step(*batch)
    waiting_fails()
    with count() as asked:
        step(*batch)
    assert (asked.graphs, asked.syncs, asked.h2d, asked.d2h) == (1, 0, 0, 0)
    assert asked.launches <= 20  # the moving average, the learning rates, the image buffer's decisions
    with count() as asked:
        step(*torch.empty(2, 2, 3, 256, 256, device="cuda"))
    assert (asked.graphs, asked.syncs, asked.h2d, asked.d2h) == (0, 0, 0, 0)


@pytest.mark.parametrize("precision", ["bf16", "no"])
def test_layouts_of_half_precision_are_channels_last(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said to have cuDNN, which the stand-in has not; a step also runs so."""
    monkeypatch.setattr(type(torch.backends.cudnn), "enabled", True)
    monkeypatch.setattr(type(torch.backends.cudnn), "benchmark", False)
    made = learner("default", tmp_path, mixed_precision=precision)
    for network in (made.generator, made.discriminator):
        for parameter in network.parameters():
            if parameter.ndim == 4:
                assert parameter.is_contiguous(memory_format=torch.channels_last) == (precision == "bf16")
    assert torch.backends.cudnn.benchmark
    for _ in range(3):
        made.step(*torch.empty(2, 1, 3, 256, 256, device="cuda"))
