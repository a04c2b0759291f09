"""The learning rate against values computed by hand and by NumPy."""

import warnings

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pix2pix_hub.training.schedule import build_schedule, linear_decay_factor


def make_optimizer(*rates: float) -> Optimizer:
    return SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def take_steps(optimizer: Optimizer, schedule: LRScheduler, count: int) -> list[float]:
    """Return the first group's rate that each of ``count`` optimizer steps was taken with."""
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 1.0), (5, 1.0), (6, 1.0), (7, 0.75), (8, 0.5), (9, 0.25), (10, 0.0), (11, 0.0), (1000, 0.0)],
)
def test_factor_with_ten_steps_of_which_four_decay(step: int, factor: float) -> None:
    assert linear_decay_factor(step, total_steps=10, decay_steps=4) == factor


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (9, 1.0), (10, 0.0), (11, 0.0)])
def test_factor_without_decay_is_one_until_the_end(step: int, factor: float) -> None:
    assert linear_decay_factor(step, total_steps=10, decay_steps=0) == factor


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (1, 0.75), (3, 0.25), (4, 0.0)])
def test_factor_may_decay_over_the_whole_run(step: int, factor: float) -> None:
    assert linear_decay_factor(step, total_steps=4, decay_steps=4) == factor


@pytest.mark.parametrize(("constant", "decay"), [(100, 100), (3, 7), (0, 5), (4, 0), (2, 1)])
def test_whole_curve_agrees_with_numpy(constant: int, decay: int) -> None:
    optimizer = make_optimizer(2e-4)
    rates = take_steps(optimizer, build_schedule(optimizer, constant + decay, decay), constant + decay + 2)
    falling = np.linspace(2e-4, 0, decay + 1)[:-1]
    np.testing.assert_allclose(rates, np.concatenate([np.full(constant, 2e-4), falling, [0, 0]]), rtol=1e-12)


def test_every_group_keeps_its_own_base_rate() -> None:
    optimizer = make_optimizer(1.0, 0.1)
    take_steps(optimizer, build_schedule(optimizer, total_steps=10, decay_steps=4), 8)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.05])


@pytest.mark.parametrize("stopped_after", [0, 3, 12, 19])
def test_a_resumed_schedule_continues_the_curve(stopped_after: int) -> None:
    optimizer = make_optimizer(2e-4)
    whole = take_steps(optimizer, build_schedule(optimizer, 20, 10), 20)
    optimizer = make_optimizer(2e-4)
    schedule = build_schedule(optimizer, 20, 10)
    first = take_steps(optimizer, schedule, stopped_after)
    resumed_optimizer = make_optimizer(2e-4)
    resumed = build_schedule(resumed_optimizer, 20, 10)
    resumed_optimizer.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    assert first + take_steps(resumed_optimizer, resumed, 20 - stopped_after) == whole


def test_the_last_rate_moves_the_weights_and_the_rate_after_it_does_not() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = Adam([weight], lr=0.1, betas=(0.5, 0.999))
    schedule = build_schedule(optimizer, total_steps=3, decay_steps=2)
    seen = []
    for _ in range(4):
        weight.grad = torch.ones(1)
        optimizer.step()
        schedule.step()
        seen.append(weight.item())
    np.testing.assert_allclose(-np.diff([1.0, *seen]), [0.1, 0.1, 0.05, 0.0], atol=1e-6)


def test_normal_use_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = make_optimizer(2e-4)
        schedule = build_schedule(optimizer, 4, 2)
        take_steps(optimizer, schedule, 4)
        schedule.load_state_dict(schedule.state_dict())


@pytest.mark.parametrize(
    ("total", "decay", "message"),
    [(10, 11, "decay_steps is 11.*at most total_steps, which is 10"), (-1, 0, "total_steps is -1"), (5, -2, "-2")],
)
def test_impossible_numbers_of_steps_are_refused(total: int, decay: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_schedule(make_optimizer(1.0), total, decay)
