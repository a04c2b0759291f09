"""The PatchGAN discriminator (Isola et al. 2017, section 3.3): a map of logits, one for each patch of a pair."""

from __future__ import annotations

from typing import Literal, overload

from torch import Tensor, nn

from pix2pix_hub.export import DISCRIMINATOR
from pix2pix_hub.models.base import HubModel, check_image_batch
from pix2pix_hub.models.layers import (
    MAX_BASE_CHANNELS,
    MAX_IMAGE_CHANNELS,
    NORMS,
    ConvBlock,
    check_choice,
    check_count,
    check_switch,
    init_weights,
)

KERNEL_SIZE = 4
MINIMUM_SIZE = 32


class PatchGANDiscriminator(HubModel):
    """Pair of images, concatenated → logits, one for each 70x70 patch (> 0: looks real).

    Convolutions k4, `c = base_channels`: c s2, 2c s2, 4c s2, 8c s1, 1. With `output_stride` 16 the last one has
    stride 2 and maps 256x256 to exactly 16x16; with 8 it has stride 1 and gives the paper's 30x30. The receptive
    field is 70x70 both times.

    Args:
        in_channels: channels of source and target together, 2 to 8192.
        base_channels: channels of the first convolution, 1 to 4096.
        output_stride: 16 or 8, pixels between neighbouring outputs.
        norm: "instance", "batch" or "none", between the first and the last convolution.
        spectral_norm: normalise every convolution spectrally (Miyato et al. 2018).
    """

    hub_subfolder = DISCRIMINATOR

    def __init__(
        self,
        in_channels: int = 6,
        base_channels: int = 64,
        output_stride: int = 16,
        norm: str = "instance",
        spectral_norm: bool = True,
    ) -> None:
        super().__init__()
        check_count("in_channels", in_channels, 2, 2 * MAX_IMAGE_CHANNELS)
        check_count("base_channels", base_channels, 1, MAX_BASE_CHANNELS)
        check_choice("output_stride", output_stride, (8, 16))
        check_choice("norm", norm, NORMS)
        check_switch("spectral_norm", spectral_norm)
        self.in_channels = in_channels
        self.norm = norm
        widths = [in_channels, *(base_channels * factor for factor in (1, 2, 4, 8))]
        self.blocks = nn.ModuleList(
            ConvBlock(
                before,
                after,
                stride=stride,
                norm="none" if stage == 0 else norm,
                activation="leaky_relu",
                spectral_norm=spectral_norm,
            )
            for stage, (before, after, stride) in enumerate(zip(widths, widths[1:], (2, 2, 2, 1), strict=False))
        )
        # The stride-1 block shrinks H/8 by one; one more row and column make the outputs exactly H/16.
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if output_stride == 16 else nn.Identity()
        self.output = ConvBlock(
            widths[-1], 1, stride=output_stride // 8, norm="none", activation="none", spectral_norm=spectral_norm
        )
        self.apply(init_weights)

    @property
    def receptive_field(self) -> int:
        """Height and width in pixels of the patch one output sees: 4, 10, 22, 46, 70 after each convolution."""
        field, jump = 1, 1
        for block in [*self.blocks, self.output]:
            field += (KERNEL_SIZE - 1) * jump
            jump *= block.conv.stride[0]
        return field

    @overload
    def forward(self, pair: Tensor, features: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, pair: Tensor, features: Literal[True]) -> tuple[Tensor, list[Tensor]]: ...
    def forward(self, pair: Tensor, features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Logits of a pair.

        Args:
            pair: `torch.cat([source, target], dim=1)`, (N, in_channels, H, W) in [-1, 1], H and W from 32.
            features: return the feature maps of the four blocks as well.

        Returns:
            (N, 1, H/16, W/16), or (N, 1, H/8 - 2, W/8 - 2) with `output_stride` 8; of the dtype that came.

        Raises:
            ValueError: a shape or dtype that does not fit.
        """
        check_image_batch(pair, self.in_channels, "pair")
        if min(pair.shape[-2:]) < MINIMUM_SIZE:
            raise ValueError(f"pair is {pair.shape[-2]}x{pair.shape[-1]}: each side needs {MINIMUM_SIZE} pixels.")
        x, maps = pair.to(self.dtype), []
        for block in self.blocks:  # c 128², 2c 64², 4c 32², 8c 31²
            x = block(x)
            maps.append(x)
        logits = self.output(self.pad(x)).to(pair.dtype)  # 1 16² (or 30²)
        return (logits, maps) if features else logits

    def probabilities(self, pair: Tensor) -> Tensor:
        """`forward` through a sigmoid: how real each patch looks, in [0, 1]."""
        return self.forward(pair).sigmoid()
