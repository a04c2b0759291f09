"""The benchmark of a training step: that it runs, on the device that was asked for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import common  # noqa: E402
import train_step  # noqa: E402

from pix2pix_hub.devices import use_cpu  # noqa: E402


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    words = ["--device", "cpu", "--preset", "compact", "--image-size", "64", "--threads", str(torch.get_num_threads())]
    monkeypatch.setattr(sys, "argv", ["train_step.py", *words])
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    return train_step.parse_arguments()


def test_accelerate_takes_the_cpu_where_that_is_asked_for_beside_a_gpu(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert not use_cpu()
    assert common.set_up(options) == torch.device("cpu")
    assert use_cpu()


def test_ours_is_the_trainers_step(options: argparse.Namespace) -> None:
    losses = train_step.our_step(options, common.set_up(options))()
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    assert {"d_loss", "g_loss", "g_l1"} <= losses.keys()
