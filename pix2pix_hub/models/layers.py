"""Building blocks of the two networks, smallest first."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pix2pix_hub.models.small_maps import Conv2d, ConvTranspose2d

INIT_STD = 0.02  # weights ~ N(0, 0.02) (Isola et al. 2017, section 6.2)
LEAKY_SLOPE = 0.2
NORMS = ("instance", "batch", "none")
UPSAMPLINGS = ("transposed", "resize")


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that at inference takes the statistics of each image, as pix2pix does, or those of training.

    The paper applies batch norm "using the statistics of the test batch, rather than aggregated statistics of the
    training batch" (section 3.4), with one image a batch. Taking them per image (`statistics` "image") keeps that
    result and makes it independent of what else is in the batch. Running statistics are recorded all the same, and
    are what "running" uses at inference, as batch norm commonly does.
    """

    def __init__(self, channels: int, statistics: str = "image") -> None:
        super().__init__(channels)
        self.statistics = statistics

    def forward(self, input: Tensor) -> Tensor:
        if self.training or self.statistics == "running":
            return super().forward(input)
        return F.instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)


class SpectralNormConv2d(Conv2d):
    """Convolution whose weight, as a (C_out, C_in*k*k) matrix, has largest singular value 1 (Miyato et al. 2018,
    eq. 8), estimated by one power iteration a training forward."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        nn.init.normal_(self.weight, 0.0, INIT_STD)  # before the first power iterations, which start from it
        spectral_norm(self)


def make_norm(norm: str, channels: int, statistics: str = "image", affine: bool = True) -> nn.Module:
    """`"instance"`, with scales and offsets where `affine`, `"batch"` (see `BatchNorm2d`) or `"none"`."""
    if norm == "instance":
        return nn.InstanceNorm2d(channels, affine=affine)
    if norm == "batch":
        return BatchNorm2d(channels, statistics)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"norm {norm!r} is unknown: expected 'instance', 'batch' or 'none'.")


def make_activation(activation: str) -> nn.Module:
    """`"relu"`, `"leaky_relu"` (slope 0.2) or `"none"`."""
    if activation == "relu":
        return nn.ReLU(inplace=True)
    if activation == "leaky_relu":
        return nn.LeakyReLU(LEAKY_SLOPE, inplace=True)
    if activation == "none":
        return nn.Identity()
    raise ValueError(f"activation {activation!r} is unknown: expected 'relu', 'leaky_relu' or 'none'.")


class ConvBlock(nn.Module):
    """Convolution → norm → activation. Without a norm the convolution may have a bias, with one it has none."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 4,
        stride: int = 2,
        padding: int = 1,
        norm: str = "instance",
        norm_statistics: str = "image",
        activation: str = "relu",
        bias: bool = True,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        convolution = SpectralNormConv2d if spectral_norm else Conv2d
        bias = bias and norm == "none"
        self.conv = convolution(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        self.norm = make_norm(norm, out_channels, norm_statistics)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H', W'); H' = H/2 at the default k4 s2 p1."""
        return self.activation(self.norm(self.conv(x)))


def make_upsampling(upsampling: str, in_channels: int, out_channels: int, bias: bool) -> nn.Module:
    """(N, C_in, H, W) → (N, C_out, 2H, 2W): `"transposed"` (k4 s2 p1) or `"resize"` (nearest ×2, conv k3), which
    weighs every output pixel alike and so leaves no checkerboard (Odena et al. 2016)."""
    if upsampling == "transposed":
        return ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=bias)
    if upsampling == "resize":
        return nn.Sequential(nn.Upsample(scale_factor=2), Conv2d(in_channels, out_channels, 3, 1, 1, bias=bias))
    raise ValueError(f"upsampling {upsampling!r} is unknown: expected 'transposed' or 'resize'.")


class UpBlock(nn.Module):
    """Upsampling → norm → ReLU → dropout: one decoder stage, before the encoder's map is joined to it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        upsampling: str,
        norm: str,
        dropout: float,
        norm_statistics: str = "image",
    ) -> None:
        super().__init__()
        self.up = make_upsampling(upsampling, in_channels, out_channels, bias=norm == "none")
        self.norm = make_norm(norm, out_channels, norm_statistics)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, 2H, 2W)."""
        return self.dropout(F.relu(self.norm(self.up(x)), inplace=True))


def init_weights(module: nn.Module) -> None:
    """For `Module.apply`: convolutions ~ N(0, 0.02), norm scales ~ N(1, 0.02), biases 0 (the published code's)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        if not isinstance(module, SpectralNormConv2d):
            nn.init.normal_(module.weight, 0.0, INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.InstanceNorm2d | nn.BatchNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, INIT_STD)
        nn.init.zeros_(module.bias)
