"""Pairs of the embedded set as tensors, and generators whose faults are known."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from pix2pix_hub.image.format import to_model_range
from pix2pix_hub.synthetic import render_pair

SIZE = 64
PAIRS = 7  # to validate on, in the folder of the fixture `pairs`
EVALUATED, TRAINING, OTHERS = range(10_000, 10_030), range(60), range(20_000, 20_030)


@cache
def rendered(number: int, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Source and target, (3, size, size) in [-1, 1]."""
    label, photo = (torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in render_pair(number, (size, size)))
    return to_model_range(label), to_model_range(photo)


def batch(numbers: Iterable[int], size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Sources and targets, (N, 3, size, size)."""
    sources, targets = zip(*(rendered(number, size) for number in numbers), strict=True)
    return torch.stack(sources), torch.stack(targets)


def memorising(source: Tensor) -> Tensor:
    """The training target whose source is nearest."""
    sources, targets = batch(TRAINING)
    nearest = torch.cdist(source.flatten(1), sources.flatten(1)).argmin(1)
    return targets[nearest]


def constant(source: Tensor) -> Tensor:
    """The mean training target."""
    return batch(TRAINING)[1].mean(0).expand(len(source), -1, -1, -1)


def grid(period: int, strength: float = 0.15) -> Tensor:
    """(1, 1, SIZE, SIZE) of a dot pattern, of that amplitude in [-1, 1] units."""
    wave = torch.cos(2 * torch.pi * torch.arange(SIZE) / period)
    return (strength * (wave[:, None] + wave[None, :]))[None, None]
