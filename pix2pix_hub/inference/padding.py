"""From an image of any size to one that the generator takes: which stored row and column each row and column shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pix2pix_hub.models.base import Generator


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of the padded image."""

    index: Tensor  # for each padded row (or column) the stored one it shows
    before: int  # where the image begins
    size: int  # how long the image is

    @property
    def padded(self) -> int:
        """Its length."""
        return len(self.index)


def padded_axis(size: int, multiple: int, least: int) -> Axis:
    """From `size` to the next multiple, at least `least`: reflected as far as there are pixels, the border repeated
    beyond; the image stays in the middle."""
    padded = max(-(-size // multiple) * multiple, least)
    before = (padded - size) // 2
    places = torch.arange(-before, padded - before)
    mirrored = torch.where(places < size, places.abs(), 2 * (size - 1) - places)
    return Axis(mirrored.clamp(0, size - 1), before, size)


def padded_axes(size: tuple[int, int], generator: Generator) -> tuple[Axis, Axis]:
    """The rows and the columns of an image of some height and width, so that the generator takes it."""
    rows, columns = (padded_axis(length, generator.size_multiple, generator.minimum_size) for length in size)
    return rows, columns
