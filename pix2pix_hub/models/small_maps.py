"""Convolutions that compute small maps as one matrix multiplication, where that is what a CPU does faster.

At the innermost stages of a network the weight dwarfs the map: 512 filters of 1024x4x4 values, 33 MB, for a map of 4x4
pixels. Convolution kernels, which are made to go over large maps with small weights, take up to ten times as long there
as reading the weight does (docs/performance.md). Laid out as rows, one for each place of the kernel (`F.unfold`), the
map is multiplied by the weight once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`: the same function within rounding, the same parameters, faster while training on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H', W')."""
        kernel, (stride, _), (padding, _) = self.kernel_size, self.stride, self.padding
        height, width = (
            (side + 2 * padding - k) // stride + 1 for side, k in zip(input.shape[-2:], kernel, strict=True)
        )
        if not _multiplication_pays(self, input, len(input) * height * width, self.out_channels):
            return super().forward(input)
        columns = F.unfold(input, kernel, padding=padding, stride=stride)  # (N, C_in*k*k, H'*W')
        products = F.linear(_rows(columns), self.weight.flatten(1), self.bias)  # (N*H'*W', C_out)
        return products.view(len(input), height, width, -1).permute(0, 3, 1, 2).contiguous()


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d`, as `Conv2d` above."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H', W')."""
        number, channels, height, width = input.shape
        if not _multiplication_pays(self, input, number * height * width, channels) or output_size is not None:
            return super().forward(input, output_size)
        (kernel, _), (stride, _), (padding, _) = self.kernel_size, self.stride, self.padding
        products = _rows(input.flatten(2)) @ self.weight.flatten(1)  # (N*H*W, C_out*k*k)
        columns = products.view(number, height * width, -1).transpose(1, 2)
        size = [(side - 1) * stride - 2 * padding + kernel for side in (height, width)]
        made = F.fold(columns, size, kernel, padding=padding, stride=stride)
        return made if self.bias is None else made + self.bias[:, None, None]


def _multiplication_pays(layer: nn.Module, input: Tensor, places: int, channels: int) -> bool:
    """Whether the rows take at most half the memory of the weight, which has `channels` such rows.

    Only while training and in inference mode, so that nothing but `nn.Conv2d`'s own forward is ever exported, and not
    inside `torch.compile`, whose graph the sizes are no part of.
    """
    return (
        (layer.training or torch.is_inference_mode_enabled())
        and input.device.type == "cpu"
        and 2 * places <= channels
        and not torch.compiler.is_compiling()
    )


def _rows(columns: Tensor) -> Tensor:
    """(N, C, L) → (N*L, C)."""
    return columns.transpose(1, 2).flatten(0, 1)
