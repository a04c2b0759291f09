"""The U-Net generator (Isola et al. 2017, section 3.2), flat: encoder, bottleneck, decoder, output."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pix2pix_hub.models.arguments import (
    check_channels,
    check_choice,
    check_count,
    check_norm_statistics,
    check_probability,
    check_switch,
)
from pix2pix_hub.models.base import Generator
from pix2pix_hub.models.layers import (
    NORMS,
    UPSAMPLINGS,
    ConvBlock,
    UpBlock,
    init_weights,
    make_upsampling,
)

MAX_DOWNS = 12


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
        skip_activation: "relu", or "none": the decoder reads the encoder's maps as they are (huggan's network).
        output_layer: "matching" (as `upsampling`), or "resize_4x4" (nearest ×2, conv k4; huggan's network).
    """

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
        skip_activation: str = "relu",
        output_layer: str = "matching",
    ) -> None:
        super().__init__()
        check_channels(in_channels, out_channels, base_channels)
        check_count("num_downs", num_downs, 1, MAX_DOWNS)
        check_choice("norm", norm, NORMS)
        check_choice("encoder_activation", encoder_activation, ("relu", "leaky_relu"))
        check_choice("bottleneck", bottleneck, ("conv", "none"))
        check_choice("upsampling", upsampling, UPSAMPLINGS)
        check_probability("dropout", dropout)
        check_switch("encoder_bias", encoder_bias)
        check_norm_statistics(norm, norm_statistics)
        check_count("dropout_stages", dropout_stages, 0, MAX_DOWNS)
        check_count("first_dropout_stage", first_dropout_stage, 0, MAX_DOWNS)
        check_choice("skip_activation", skip_activation, ("relu", "none"))
        check_choice("output_layer", output_layer, ("matching", "resize_4x4"))
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.size_multiple = 2**num_downs
        # norms need more than one pixel, and reach the deepest map unless that is the bottleneck's
        normed_depth = num_downs if bottleneck == "conv" and num_downs > 1 else num_downs - 1
        self.minimum_size = max(self.size_multiple, 1 if norm == "none" else 2 ** (normed_depth + 1))
        self.skip_activation = skip_activation

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
        self.output = make_output(
            output_layer if output_layer == "resize_4x4" else upsampling, joined[-1], base_channels, out_channels
        )
        self.apply(init_weights)

    def forward(self, source: Tensor) -> Tensor:
        """(N, in_channels, H, W) in [-1, 1] → (N, out_channels, H, W) in [-1, 1].

        Raises:
            ValueError: a shape or dtype that does not fit, or a height or width that is no multiple of
                `size_multiple` or below `minimum_size`.
        """
        self.check_source(source)
        x, skips = source, []
        for stage in self.encoder:  # c 128², 2c 64², 4c 32², 8c 16², 8c 8², 8c 4², 8c 2²
            x = stage(x)
            skips.append(F.relu(x) if self.skip_activation == "relu" else x)
        x = self.bottleneck(skips.pop())  # 8c 2²
        for stage in self.decoder:  # 8c 4², 8c 8², 8c 16², 4c 32², 2c 64², c 128², each with as many of the skip
            x = torch.cat([stage(x), skips.pop()], dim=1)
        return torch.tanh(self.output(x))  # out_channels 256²


def make_output(kind: str, in_channels: int, base_channels: int, out_channels: int) -> nn.Module:
    """The last layer, (N, in_channels, H, W) → (N, out_channels, 2H, 2W): `"transposed"`, `"resize"` (with one more
    convolution, which removes what blocks of 2x2 equal pixels leave) or `"resize_4x4"`."""
    if kind == "transposed":
        return make_upsampling("transposed", in_channels, out_channels, bias=True)
    if kind == "resize_4x4":  # an even kernel needs one more row and column of padding above and left
        padding = nn.ZeroPad2d((2, 1, 2, 1))
        return nn.Sequential(nn.Upsample(scale_factor=2), padding, nn.Conv2d(in_channels, out_channels, 4))
    first = make_upsampling("resize", in_channels, base_channels, bias=True)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(base_channels, out_channels, 3, 1, 1))
