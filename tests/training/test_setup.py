"""What a trainer is built from: the learning rate's schedule, and what `--compile` comes to."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from run_results import Tiny, same, train, weights
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.training import setup
from pix2pix_hub.training.setup import Compilation, build_schedule, choose_compilation
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


def accelerator(device: str, processes: int, precision: str) -> Accelerator:
    """What the choice looks at."""
    place = SimpleNamespace(device=torch.device(device), num_processes=processes, mixed_precision=precision)
    return cast(Accelerator, place)


def test_on_without_a_compiler_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"no C\+\+ compiler.*apt-get install g\+\+"):
        choose_compilation(TrainingConfig(compile="on"), accelerator("cpu", 1, "no"), 10**6)
    found = choose_compilation(TrainingConfig(), accelerator("cuda", 1, "bf16"), 10**6)
    assert found == Compilation(networks=False, step=True)


@pytest.mark.parametrize(
    ("requested", "device", "processes", "precision", "accumulated", "steps", "networks", "step"),
    [
        ("auto", "cpu", 1, "bf16", 1, 10**6, False, False),
        ("on", "cpu", 1, "no", 1, 10, True, False),
        ("off", "cuda", 1, "bf16", 1, 10**6, False, False),
        ("auto", "cuda", 1, "bf16", 1, 10**6, True, True),
        ("auto", "cuda", 1, "bf16", 1, 1000, False, True),
        ("auto", "cuda", 1, "no", 1, 1000, False, True),
        ("on", "cuda", 1, "bf16", 1, 1000, True, True),
        ("auto", "cuda", 1, "fp16", 1, 10**6, False, False),
        ("auto", "cuda", 2, "bf16", 1, 10**6, False, False),
        ("on", "cuda", 2, "bf16", 1, 10, True, False),
        ("auto", "cuda", 1, "bf16", 2, 10**6, False, False),
    ],
)
def test_steps_are_recorded_where_they_are_the_same_each_time(
    requested: Literal["auto", "on", "off"],
    device: str,
    processes: int,
    precision: str,
    accumulated: int,
    steps: int,
    networks: bool,
    step: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(setup, "missing_for_compilation", lambda device_type: None)
    config = TrainingConfig(compile=requested, gradient_accumulation_steps=accumulated)
    found = choose_compilation(config, accelerator(device, processes, precision), steps)
    assert found == Compilation(networks, step)
