"""From an image of any size to one that the generator takes: which stored row and column each row and column shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pix2pix_hub.data.preprocessor import Preprocessor


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


def padded_axes(size: tuple[int, int], preprocessor: Preprocessor) -> tuple[Axis, Axis]:
    """The rows and the columns of an image of some height and width.

    The deepest map gets at least 2 by 2 pixels (norms need more than one), or what it had in training where that was
    less.
    """
    multiple = preprocessor.size_multiple
    rows, columns = (
        padded_axis(length, multiple, min(2 * multiple, -(-trained_at // multiple) * multiple))
        for length, trained_at in zip(size, preprocessor.image_size, strict=True)
    )
    return rows, columns
