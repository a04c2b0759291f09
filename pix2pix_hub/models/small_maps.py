"""Convolutions that compute small maps as one matrix multiplication, where that is what a CPU does faster.

At the innermost stages of a network the weight dwarfs the map: 512 filters of 1024x4x4 values, 33 MB, for a map of 4x4
pixels. Convolution kernels, which are made to go over large maps with small weights, take several times as long there
as reading the weight does (docs/performance.md). Laid out as rows, one for each place of the kernel (`F.unfold`), the
map is multiplied by the weight once. Where there are few rows beside the weight's own, that is faster.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARE_OF_WEIGHT = 0.5  # number of rows over that of the weight's, up to which one multiplication is faster


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`: the same function within rounding, the same parameters, faster on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H', W')."""
        if not _applies(self, input):
            return super().forward(input)
        kernel, stride, padding = _geometry(self)
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in input.shape[-2:])
        if len(input) * height * width > SHARE_OF_WEIGHT * self.out_channels:
            return super().forward(input)
        columns = F.unfold(input, kernel, padding=padding, stride=stride)  # (N, C_in*k*k, H'*W')
        products = F.linear(_rows(columns), self.weight.flatten(1), self.bias)  # (N*H'*W', C_out)
        return products.view(len(input), height, width, -1).permute(0, 3, 1, 2).contiguous()


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d`, as `Conv2d` above."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H', W')."""
        if not _applies(self, input) or output_size is not None:
            return super().forward(input, output_size)
        number, channels, height, width = input.shape
        if number * height * width > SHARE_OF_WEIGHT * channels:
            return super().forward(input)
        kernel, stride, padding = _geometry(self)
        products = _rows(input.flatten(2)) @ self.weight.flatten(1)  # (N*H*W, C_out*k*k)
        columns = products.view(number, height * width, -1).transpose(1, 2)
        size = ((height - 1) * stride - 2 * padding + kernel, (width - 1) * stride - 2 * padding + kernel)
        made = F.fold(columns, size, kernel, padding=padding, stride=stride)
        return made if self.bias is None else made + self.bias[:, None, None]


def _geometry(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[int, int, int]:
    """Kernel size, stride and padding of a layer, the same both ways."""
    assert isinstance(layer.padding, tuple) and layer.padding_mode == "zeros" and layer.groups == 1
    return layer.kernel_size[0], layer.stride[0], layer.padding[0]


def _applies(layer: nn.Module, input: Tensor) -> bool:
    """Whether to look at sizes at all.

    Only while training and in inference mode, so that nothing but torch's own convolution is ever exported, and not
    inside `torch.compile`, which has its own ways with convolutions.
    """
    if torch.compiler.is_compiling() or input.device.type != "cpu":  # asked first: what follows cannot be compiled
        return False
    return layer.training or torch.is_inference_mode_enabled()


def _rows(columns: Tensor) -> Tensor:
    """(N, C, L) → (N*L, C)."""
    return columns.transpose(1, 2).flatten(0, 1)
