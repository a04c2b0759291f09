"""The ResNet generator (Johnson et al. 2016, as CycleGAN uses it): no skips from input to output, so it suits pairs
whose sides are not aligned to the pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pix2pix_hub.models.arguments import (
    check_channels,
    check_choice,
    check_count,
    check_norm_statistics,
    check_probability,
)
from pix2pix_hub.models.base import Generator
from pix2pix_hub.models.layers import NORMS, UPSAMPLINGS, init_weights, make_norm

DOWNS = 2
MAX_BLOCKS = 64


class NormedConv(nn.Module):
    """Convolution (or what stands for one) → norm; `norm_options` are those of `make_norm`."""

    def __init__(self, conv: nn.Module, channels: int, norm_options: dict[str, Any]) -> None:
        super().__init__()
        self.conv = conv
        self.norm = make_norm(channels=channels, **norm_options)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, channels, H', W')."""
        return self.norm(self.conv(x))


class ResidualBlock(nn.Module):
    """x + norm(conv(dropout(relu(norm(conv(x)))))), with reflected borders."""

    def __init__(self, channels: int, bias: bool, dropout: float, norm_options: dict[str, Any]) -> None:
        super().__init__()
        self.first = NormedConv(make_conv(channels, channels, 3, bias), channels, norm_options)
        self.dropout = nn.Dropout(dropout)
        self.second = NormedConv(make_conv(channels, channels, 3, bias), channels, norm_options)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) → the same."""
        return x + self.second(self.dropout(self.first(x).relu()))


def make_conv(in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> nn.Conv2d:
    """Convolution with reflected borders, (N, C_in, H, W) → (N, C_out, H, W)."""
    padding = kernel_size // 2
    return nn.Conv2d(in_channels, out_channels, kernel_size, 1, padding, bias=bias, padding_mode="reflect")


def make_upsampling(upsampling: str, in_channels: int, out_channels: int, bias: bool) -> nn.Module:
    """(N, C_in, H, W) → (N, C_out, 2H, 2W): `"transposed"` (k3 s2) or `"resize"` (nearest ×2, conv k3)."""
    if upsampling == "transposed":
        return nn.ConvTranspose2d(in_channels, out_channels, 3, 2, 1, output_padding=1, bias=bias)
    return nn.Sequential(nn.Upsample(scale_factor=2), make_conv(in_channels, out_channels, 3, bias))


class ResNetGenerator(Generator):
    """Source image → generated image, through residual blocks at a quarter of its size.

    With the defaults, `c = base_channels` and a 256x256 source (the published `resnet_9blocks`, 11,378,179
    parameters):

    ==========  =====================================  =============================
    stem        c (conv k7, reflected borders)         256
    encoder     2c 4c (conv k3 s2)                     128 64
    blocks      4c, nine times                         64
    decoder     2c c (transposed conv k3 s2)           128 256
    output      out_channels (conv k7), tanh           256
    ==========  =====================================  =============================

    Args:
        in_channels: channels of the source, 1 to 4096.
        out_channels: channels of the target, 1 to 4096.
        base_channels: channels of the stem, 1 to 4096.
        num_blocks: residual blocks, 0 to 64.
        norm: "instance" (not affine; the convolutions have biases, as in the published network), "batch" (the
            convolutions have none) or "none".
        upsampling: "transposed" (k3 s2) or "resize" (nearest ×2, conv k3; no checkerboard).
        dropout: probability in every residual block, while training.
        norm_statistics: what "batch" uses at inference: "image" (statistics of each image) or "running".
    """

    size_multiple = 2**DOWNS
    minimum_size = 2 * size_multiple  # the blocks reflect one pixel

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        base_channels: int = 64,
        num_blocks: int = 9,
        norm: str = "instance",
        upsampling: str = "transposed",
        dropout: float = 0.0,
        norm_statistics: str = "image",
    ) -> None:
        super().__init__()
        check_channels(in_channels, out_channels, base_channels)
        check_count("num_blocks", num_blocks, 0, MAX_BLOCKS)
        check_choice("norm", norm, NORMS)
        check_choice("upsampling", upsampling, UPSAMPLINGS)
        check_probability("dropout", dropout)
        check_norm_statistics(norm, norm_statistics)
        self.in_channels = in_channels
        self.out_channels = out_channels

        widths = [base_channels * 2**stage for stage in range(DOWNS + 1)]
        bias = norm != "batch"
        norms = dict(norm=norm, statistics=norm_statistics, affine=False)
        self.stem = NormedConv(make_conv(in_channels, widths[0], 7, bias), widths[0], norms)
        self.encoder = nn.ModuleList(
            NormedConv(nn.Conv2d(before, after, 3, 2, 1, bias=bias), after, norms)
            for before, after in zip(widths, widths[1:], strict=False)
        )
        self.blocks = nn.ModuleList(ResidualBlock(widths[-1], bias, dropout, norms) for _ in range(num_blocks))
        self.decoder = nn.ModuleList(
            NormedConv(make_upsampling(upsampling, before, after, bias), after, norms)
            for before, after in zip(widths[::-1], widths[-2::-1], strict=False)
        )
        self.output = make_conv(widths[0], out_channels, 7, bias=True)
        self.apply(init_weights)

    def forward(self, source: Tensor) -> Tensor:
        """(N, in_channels, H, W) in [-1, 1] → (N, out_channels, H, W) in [-1, 1].

        Raises:
            ValueError: a shape or dtype that does not fit, or a height or width that is no multiple of 4 or below 8.
        """
        self.check_source(source)
        x = self.stem(source).relu()  # c 256²
        for stage in self.encoder:  # 2c 128², 4c 64²
            x = stage(x).relu()
        for block in self.blocks:  # 4c 64²
            x = block(x)
        for stage in self.decoder:  # 2c 128², c 256²
            x = stage(x).relu()
        return torch.tanh(self.output(x))  # out_channels 256²
