"""What a trainer is built from: the learning rate's schedule, and what `--compile` comes to."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from run_results import Tiny, same, train, weights
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.training import setup
from pix2pix_hub.training.setup import build_schedule, choose_compile_mode
from pix2pix_hub.util import UserError


def take_steps(optimizer: Optimizer, schedule: LRScheduler, count: int) -> list[float]:
    """The rate that each of `count` optimizer steps was taken with."""
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("constant", "decay"), [(100, None), (100, 100), (3, 7), (0, 5), (4, 0), (2, 1)])
def test_the_rate_is_constant_then_falls_linearly_to_zero_also_when_resumed(constant: int, decay: int | None) -> None:
    falls = constant if decay is None else decay
    steps = constant + falls
    config = TrainingConfig(epochs=steps, decay_epochs=decay)
    optimizer, resumed = (SGD([torch.nn.Parameter(torch.zeros(1))], 2e-4) for _ in range(2))
    schedule = build_schedule(optimizer, config, steps)
    rates = take_steps(optimizer, schedule, 2)
    later = build_schedule(resumed, config, steps)
    resumed.load_state_dict(optimizer.state_dict())
    later.load_state_dict(schedule.state_dict())
    rates += take_steps(resumed, later, steps)
    falling = np.linspace(2e-4, 0, falls + 1)[:-1]
    np.testing.assert_allclose(rates, [*[2e-4] * constant, *falling, 0, 0], rtol=1e-12)


def test_a_compiled_run_resumed_ends_as_the_uninterrupted_one(tiny: Tiny, tmp_path: Path) -> None:
    options = dict(compile="on", max_steps=4, checkpoint_every=2, epochs=2, num_downs=2, spectral_norm=True)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(tiny(**options, output_dir=str(whole)))
    shutil.copytree(whole, stopped)
    for later in ("checkpoints/checkpoint_4", "model", "model_best"):
        shutil.rmtree(stopped / later)
    assert train(tiny(**options, output_dir=str(stopped), resume=True)).step == 4
    assert same(weights(stopped), weights(whole))
    assert torch._dynamo.utils.counters["frames"]["ok"], "nothing was compiled"


def test_on_without_a_compiler_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"no C\+\+ compiler.*apt-get install g\+\+"):
        choose_compile_mode("on", "cpu", 1, True)


@pytest.mark.parametrize(
    ("requested", "device", "batch_size", "plain_loop", "mode"),
    [
        ("off", "cpu", 1, True, None),
        ("auto", "cpu", 1, True, None),
        ("on", "cuda", 1, True, "reduce-overhead"),
        ("on", "cuda", 16, True, "default"),
        ("on", "cuda", 1, False, "default"),
    ],
)
def test_graphs_are_for_small_batches_of_a_plain_loop_on_cuda(
    requested: str, device: str, batch_size: int, plain_loop: bool, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "missing_for_compilation", lambda device_type: None)
    assert choose_compile_mode(requested, device, batch_size, plain_loop) == mode
