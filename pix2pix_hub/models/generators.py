"""The generators: the U-Net (Isola et al. 2017, section 3.2), and the ResNet (Johnson et al. 2016, as CycleGAN uses
it), which has no skips from input to output and so suits pairs whose sides are not aligned to the pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pix2pix_hub.models.base import Generator, load_network
from pix2pix_hub.models.layers import (
    ConvBlock,
    UpBlock,
    check_choice,
    check_count,
    check_generator,
    check_switch,
    init_weights,
    make_norm,
    make_upsampling,
)

MAX_DOWNS = 12
RESNET_DOWNS = 2
MAX_BLOCKS = 64


class UNetGenerator(Generator):
    """Source image → generated image, with skip connections between maps of the same size.

    With the defaults (the project's specification), `c = base_channels` and a 256x256 source:

    ==========  =====================================  =============================
    encoder     c 2c 4c 8c 8c 8c 8c                    128 64 32 16 8 4 2
    bottleneck  8c (conv k3 s1)                        2
    decoder     8c 8c 8c 4c 2c c, then the skip        4 8 16 32 64 128
    output      out_channels, tanh                     256
    ==========  =====================================  =============================

    Args:
        in_channels: channels of the source, 1 to 4096.
        out_channels: channels of the target, 1 to 4096.
        base_channels: channels of the first stage, 1 to 4096.
        num_downs: encoder stages, 1 to 12; each halves height and width.
        norm: "instance" (affine), "batch" or "none".
        norm_statistics: what "batch" uses at inference: "image" (statistics of each image, as the paper) or "running".
        encoder_activation: "relu", or "leaky_relu" (the paper).
        bottleneck: "conv", or "none" (the paper, with `num_downs` down to 1x1); the innermost convolution has no
            norm.
        upsampling: "transposed" (k4 s2 p1) or "resize" (nearest ×2, conv k3; no checkerboard).
        dropout: probability in some decoder stages, while training.
        dropout_stages: how many decoder stages have dropout, 0 to 12.
        first_dropout_stage: the first of them, counted from the innermost, 0.
        encoder_bias: bias on the encoder convolutions that no norm follows (the published network: none).
    """

    retired_options: ClassVar = {"skip_activation": "relu", "output_layer": "matching"}

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        base_channels: int = 64,
        num_downs: int = 7,
        norm: str = "instance",
        encoder_activation: str = "relu",
        bottleneck: str = "conv",
        upsampling: str = "transposed",
        dropout: float = 0.5,
        encoder_bias: bool = True,
        norm_statistics: str = "image",
        dropout_stages: int = 3,
        first_dropout_stage: int = 0,
    ) -> None:
        super().__init__()
        check_generator(in_channels, out_channels, base_channels, norm, norm_statistics, upsampling, dropout)
        check_count("num_downs", num_downs, 1, MAX_DOWNS)
        check_choice("encoder_activation", encoder_activation, ("relu", "leaky_relu"))
        check_choice("bottleneck", bottleneck, ("conv", "none"))
        check_switch("encoder_bias", encoder_bias)
        check_count("dropout_stages", dropout_stages, 0, MAX_DOWNS)
        check_count("first_dropout_stage", first_dropout_stage, 0, MAX_DOWNS)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.size_multiple = 2**num_downs
        # norms need more than one pixel, and reach the deepest map unless that is the bottleneck's
        normed_depth = num_downs if bottleneck == "conv" and num_downs > 1 else num_downs - 1
        self.minimum_size = max(self.size_multiple, 1 if norm == "none" else 2 ** (normed_depth + 1))

        widths = [base_channels * min(2**stage, 8) for stage in range(num_downs)]
        innermost = num_downs - 1 if bottleneck == "none" else None
        self.encoder = nn.ModuleList(
            ConvBlock(
                before,
                after,
                norm="none" if stage in (0, innermost) else norm,
                norm_statistics=norm_statistics,
                activation=encoder_activation,
                bias=encoder_bias or norm == "none",
            )
            for stage, (before, after) in enumerate(zip([in_channels, *widths], widths, strict=False))
        )
        self.bottleneck = (
            ConvBlock(widths[-1], widths[-1], kernel_size=3, stride=1, norm="none", activation="relu")
            if bottleneck == "conv"
            else nn.Identity()
        )
        joined = [widths[-1], *(2 * width for width in reversed(widths[:-1]))]  # after each concatenation
        self.decoder = nn.ModuleList(
            UpBlock(
                before,
                after,
                upsampling=upsampling,
                norm=norm,
                norm_statistics=norm_statistics,
                dropout=dropout if 0 <= stage - first_dropout_stage < dropout_stages else 0.0,
            )
            for stage, (before, after) in enumerate(zip(joined, reversed(widths[:-1]), strict=False))
        )
        if upsampling == "transposed":
            self.output = make_upsampling("transposed", joined[-1], out_channels, bias=True)
        else:  # one more convolution removes what blocks of 2x2 equal pixels leave
            self.output = nn.Sequential(
                make_upsampling("resize", joined[-1], base_channels, bias=True),
                nn.ReLU(),
                nn.Conv2d(base_channels, out_channels, 3, 1, 1),
            )
        self.apply(init_weights)

    def forward(self, source: Tensor) -> Tensor:
        """(N, in_channels, H, W) in [-1, 1] → (N, out_channels, H, W) in [-1, 1], of the same dtype.

        Raises:
            ValueError: a shape or dtype that does not fit, or a height or width that is no multiple of
                `size_multiple` or below `minimum_size`.
        """
        self.check_source(source)
        x, skips = source.to(self.dtype), []
        for stage in self.encoder:  # c 128², 2c 64², 4c 32², 8c 16², 8c 8², 8c 4², 8c 2²
            x = stage(x)
            skips.append(F.relu(x))
        x = self.bottleneck(skips.pop())  # 8c 2²
        for stage in self.decoder:  # 8c 4², 8c 8², 8c 16², 4c 32², 2c 64², c 128², each with as many of the skip
            x = torch.cat([stage(x), skips.pop()], dim=1)
        return torch.tanh(self.output(x)).to(source.dtype)  # out_channels 256²


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


def _upsampled(upsampling: str, in_channels: int, out_channels: int, bias: bool) -> nn.Module:
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

    size_multiple = 2**RESNET_DOWNS
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
        check_generator(in_channels, out_channels, base_channels, norm, norm_statistics, upsampling, dropout)
        check_count("num_blocks", num_blocks, 0, MAX_BLOCKS)
        self.in_channels = in_channels
        self.out_channels = out_channels

        widths = [base_channels * 2**stage for stage in range(RESNET_DOWNS + 1)]
        bias = norm != "batch"
        norms = dict(norm=norm, statistics=norm_statistics, affine=False)
        self.stem = NormedConv(make_conv(in_channels, widths[0], 7, bias), widths[0], norms)
        self.encoder = nn.ModuleList(
            NormedConv(nn.Conv2d(before, after, 3, 2, 1, bias=bias), after, norms)
            for before, after in zip(widths, widths[1:], strict=False)
        )
        self.blocks = nn.ModuleList(ResidualBlock(widths[-1], bias, dropout, norms) for _ in range(num_blocks))
        self.decoder = nn.ModuleList(
            NormedConv(_upsampled(upsampling, before, after, bias), after, norms)
            for before, after in zip(widths[::-1], widths[-2::-1], strict=False)
        )
        self.output = make_conv(widths[0], out_channels, 7, bias=True)
        self.apply(init_weights)

    def forward(self, source: Tensor) -> Tensor:
        """(N, in_channels, H, W) in [-1, 1] → (N, out_channels, H, W) in [-1, 1], of the same dtype.

        Raises:
            ValueError: a shape or dtype that does not fit, or a height or width that is no multiple of 4 or below 8.
        """
        self.check_source(source)
        x = self.stem(source.to(self.dtype)).relu()  # c 256²
        for stage in self.encoder:  # 2c 128², 4c 64²
            x = stage(x).relu()
        for block in self.blocks:  # 4c 64²
            x = block(x)
        for stage in self.decoder:  # 2c 128², c 256²
            x = stage(x).relu()
        return torch.tanh(self.output(x)).to(source.dtype)  # out_channels 256²


GENERATORS: dict[str, type[UNetGenerator] | type[ResNetGenerator]] = {
    "UNetGenerator": UNetGenerator,
    "ResNetGenerator": ResNetGenerator,
}


def load_generator(
    repo_or_folder: str | Path,
    *,
    map_location: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **hub_options: Any,
) -> Generator:
    """The generator of an export, in evaluation mode.

    Args:
        repo_or_folder: a local export, or a Hub repository id (`user/name`, `user/name@revision`).
        map_location: device to load to.
        dtype: of the loaded weights, whatever the file holds.
        **hub_options: `revision`, `token`, … of `fetch_files`.

    Raises:
        UserError: as `HubModel.from_pretrained`; or the config names none of `GENERATORS`.
    """
    classes = list(GENERATORS.values())
    return load_network(repo_or_folder, classes, map_location=map_location, dtype=dtype, **hub_options)
