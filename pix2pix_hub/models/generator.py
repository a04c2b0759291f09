"""The U-Net generator (Isola et al. 2017, section 3.2), flat: encoder, bottleneck, decoder, output."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pix2pix_hub.models.arguments import (
    MAX_BASE_CHANNELS,
    MAX_IMAGE_CHANNELS,
    check_choice,
    check_count,
    check_probability,
    check_switch,
)
from pix2pix_hub.models.base import HubModel, check_image_batch
from pix2pix_hub.models.layers import NORMS, UPSAMPLINGS, ConvBlock, UpBlock, init_weights, make_upsampling

DROPOUT_STAGES = 3
MAX_DOWNS = 12


class UNetGenerator(HubModel):
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
        norm: "instance" (affine), "batch" (at inference: statistics of each image, as the paper) or "none".
        encoder_activation: "relu", or "leaky_relu" (the paper). The decoder reads the ReLU of each skip either way,
            as in the published network.
        bottleneck: "conv", or "none" (the paper, with `num_downs` down to 1x1); the innermost convolution has no
            norm.
        upsampling: "transposed" (k4 s2 p1) or "resize" (nearest ×2, conv k3; no checkerboard).
        dropout: probability in the three deepest decoder stages, while training.
        encoder_bias: bias on the encoder convolutions that no norm follows (the published network: none).
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
    ) -> None:
        super().__init__()
        check_count("in_channels", in_channels, 1, MAX_IMAGE_CHANNELS)
        check_count("out_channels", out_channels, 1, MAX_IMAGE_CHANNELS)
        check_count("base_channels", base_channels, 1, MAX_BASE_CHANNELS)
        check_count("num_downs", num_downs, 1, MAX_DOWNS)
        check_choice("norm", norm, NORMS)
        check_choice("encoder_activation", encoder_activation, ("relu", "leaky_relu"))
        check_choice("bottleneck", bottleneck, ("conv", "none"))
        check_choice("upsampling", upsampling, UPSAMPLINGS)
        check_probability("dropout", dropout)
        check_switch("encoder_bias", encoder_bias)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_downs = num_downs

        widths = [base_channels * min(2**stage, 8) for stage in range(num_downs)]
        innermost = num_downs - 1 if bottleneck == "none" else None
        self.encoder = nn.ModuleList(
            ConvBlock(
                before,
                after,
                norm="none" if stage in (0, innermost) else norm,
                activation=encoder_activation,
                bias=encoder_bias or norm == "none",
            )
            for stage, (before, after) in enumerate(zip([in_channels, *widths], widths, strict=False))
        )
        self.bottleneck = (
            ConvBlock(widths[-1], widths[-1], kernel_size=3, stride=1, norm="none", activation="relu")
            if bottleneck == "conv"
            else nn.ReLU()
        )
        joined = [widths[-1], *(2 * width for width in reversed(widths[:-1]))]  # after each concatenation
        self.decoder = nn.ModuleList(
            UpBlock(before, after, upsampling=upsampling, norm=norm, dropout=dropout if stage < DROPOUT_STAGES else 0.0)
            for stage, (before, after) in enumerate(zip(joined, reversed(widths[:-1]), strict=False))
        )
        self.output = (
            make_upsampling("transposed", joined[-1], out_channels, bias=True)
            if upsampling == "transposed"
            else nn.Sequential(
                make_upsampling(upsampling, joined[-1], base_channels, bias=True),
                nn.ReLU(),
                nn.Conv2d(base_channels, out_channels, 3, 1, 1),
            )
        )
        self.apply(init_weights)

    @property
    def size_multiple(self) -> int:
        """Height and width of a source must be multiples of this many pixels."""
        return 2**self.num_downs

    def forward(self, source: Tensor) -> Tensor:
        """(N, in_channels, H, W) in [-1, 1] → (N, out_channels, H, W) in [-1, 1].

        Raises:
            ValueError: a shape or dtype that does not fit, or a height or width that is no multiple of
                `size_multiple`.
        """
        self._check_source(source)
        x, skips = source, []
        for stage in self.encoder:  # c 128², 2c 64², 4c 32², 8c 16², 8c 8², 8c 4², 8c 2²
            x = stage(x)
            skips.append(F.relu(x))
        x = self.bottleneck(skips.pop())  # 8c 2²
        for stage in self.decoder:  # 8c 4², 8c 8², 8c 16², 4c 32², 2c 64², c 128², each with as many of the skip
            x = torch.cat([stage(x), skips.pop()], dim=1)
        return torch.tanh(self.output(x))  # out_channels 256²

    def _check_source(self, source: Tensor) -> None:
        check_image_batch(source, self.in_channels, "source")
        height, width = source.shape[-2:]
        step = self.size_multiple
        if height % step or width % step:
            fitting = f"{-(-height // step) * step}x{-(-width // step) * step}"
            raise ValueError(
                f"source is {height}x{width}: height and width must be multiples of {step} (num_downs "
                f"{self.num_downs}); the next size that works is {fitting}."
            )
