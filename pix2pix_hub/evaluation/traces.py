"""What the checks look at: a few numbers of each image, small enough to keep of thousands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from pix2pix_hub.image.format import to_unit_range

THUMBNAIL = 32  # pixels
# Frequencies (cycles a pixel) at which a decoder's last three strides repeat, without those of a smaller stride.
STRIDE_FREQUENCIES = {2: (1 / 2,), 4: (1 / 4,), 8: (1 / 8, 3 / 8)}
_FREQUENCIES = tuple(f for frequencies in STRIDE_FREQUENCIES.values() for f in frequencies)
_NEIGHBOURS = (-3, -2, 2, 3)  # bins: a Hann window leaks into the next one only
_COMMON_PERIOD = 8
_ROUNDING = 1 / (12 * 255**2)  # variance that 8 bits add: so much is in the spectrum of every image


@dataclass(frozen=True)
class Traces:
    """Of N images in [0, 1]. On the CPU, the first axis is the image."""

    thumbnails: Tensor  # float32 (N, C, 32, 32), means over areas
    means: Tensor  # float64 (N, C)
    gradients: Tensor  # float64 (N,) mean square difference of neighbouring pixels, both directions
    stride_power: Tensor  # float64 (N, 2, 4) mean square of the wave at each stride frequency, along rows, columns
    nearby_power: Tensor  # float64 (N, 2, 4, 4) the same at the bins beside them

    def __len__(self) -> int:
        return len(self.means)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The images of all parts, in order."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def rows(self, index: Tensor) -> Self:
        """Some of the images."""
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))


def traces_of(images: Tensor) -> Traces:
    """(N, C, H, W) in [-1, 1], H and W from 32."""
    unit = to_unit_range(images.detach().float().cpu())
    down, across = (unit.diff(dim=axis).square().double().mean(dim=(1, 2, 3)) for axis in (-2, -1))
    powers = [_stride_power(unit), _stride_power(unit.transpose(-1, -2))]
    return Traces(
        thumbnails_of(images),
        unit.double().mean(dim=(-2, -1)),
        (down + across) / 2,
        torch.stack([at for at, _ in powers], dim=1),
        torch.stack([nearby for _, nearby in powers], dim=1),
    )


def thumbnails_of(images: Tensor) -> Tensor:
    """(N, C, H, W) in [-1, 1] → float32 (N, C, 32, 32) in [0, 1], on the CPU."""
    return F.adaptive_avg_pool2d(to_unit_range(images.detach().float().cpu()), THUMBNAIL)


def _stride_power(unit: Tensor) -> tuple[Tensor, Tensor]:
    """Spectrum of all rows, averaged, as the mean square of a wave: (N, 4) at the stride frequencies, (N, 4, 4) beside
    them."""
    length = unit.shape[-1] // _COMMON_PERIOD * _COMMON_PERIOD
    window = torch.hann_window(length, dtype=unit.dtype)
    rows = unit[..., :length]
    power = torch.fft.rfft((rows - rows.mean(dim=-1, keepdim=True)) * window).abs().square()
    power = power.double().mean(dim=(1, 2)) + _ROUNDING * window.square().sum()
    sides = torch.tensor([1.0 if f == 1 / 2 else 2.0 for f in _FREQUENCIES])  # f and -f are one wave
    bins = torch.tensor([round(f * length) for f in _FREQUENCIES])
    beside = bins[:, None] + torch.tensor(_NEIGHBOURS)
    beside = torch.minimum(beside, length - beside)  # above half a cycle a pixel the spectrum is mirrored
    scale = sides / window.double().sum() ** 2
    return power[:, bins] * scale, power[:, beside] * scale[:, None]
