"""Building blocks of the networks, smallest first, and the checks of their constructors' arguments."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

INIT_STD = 0.02  # weights ~ N(0, 0.02) (Isola et al. 2017, section 6.2)
LEAKY_SLOPE = 0.2
NORMS = ("instance", "batch", "none")
UPSAMPLINGS = ("transposed", "resize")
MAX_IMAGE_CHANNELS = MAX_BASE_CHANNELS = 4096

# --- small maps ---
#
# At the innermost stages of a network the weight dwarfs the map: 512 filters of 1024x4x4 values, 33 MB, for a map of
# 4x4 pixels. Convolution kernels, which are made to go over large maps with small weights, take several times as long
# there as reading the weight does (docs/performance.md). Laid out as rows, one for each place of the kernel
# (`F.unfold`), the map is multiplied by the weight once. Where there are few rows beside the weight's own, that is
# faster on a CPU.

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


LEAST_PIXELS = 256  # and no fewer than channels, from which making the kernel of 4x4 pays


class ResizeConv(nn.Sequential):
    """Nearest ×2, then convolution k3: (N, C_in, H, W) → (N, C_out, 2H, 2W); every output pixel is weighed alike, so no
    checkerboard is left (Odena et al. 2016).

    Of the nine values that a kernel of 3x3 sees on the enlarged map, at most four differ. Added up, its weights are
    those of a transposed convolution k4 s2 p1, borders of zeros included, with 4/9 of the multiplications: on large
    maps two to three times as fast on a CPU.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__(nn.Upsample(scale_factor=2), Conv2d(in_channels, out_channels, 3, 1, 1, bias=bias))

    def forward(self, input: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, 2H, 2W)."""
        convolution = self[1]
        assert isinstance(convolution, Conv2d)
        number, channels, height, width = input.shape
        pixels = height * width * (number if convolution.training else 1)  # else a batch would change its images
        if not _applies(convolution, input) or pixels < max(LEAST_PIXELS, channels):
            return super().forward(input)
        rows = F.pad(convolution.weight, (0, 0, 0, 1)) + F.pad(convolution.weight, (0, 0, 1, 0))
        kernel = (F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))).flip(2, 3)  # (C_out, C_in, 4, 4)
        return F.conv_transpose2d(input, kernel.transpose(0, 1), convolution.bias, stride=2, padding=1)


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


# --- blocks ---


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


FIRST_ITERATIONS = 15


class SpectralNorm(nn.Module):
    """Weight → weight with largest singular value 1, as a (C_out, C_in*k*k) matrix (Miyato et al. 2018, eq. 8),
    estimated by one power iteration a training forward.

    As torch's own, but in the weight's precision also under CUDA's autocast, which would multiply in bfloat16.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        vectors = [matrix.new_empty(size).normal_() for size in matrix.shape]
        for name, vector in zip(("_u", "_v"), vectors, strict=True):
            self.register_buffer(name, F.normalize(vector, dim=0))
        for _ in range(FIRST_ITERATIONS):
            self._iterate(matrix)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        F.normalize(torch.mv(matrix, self._v), dim=0, out=self._u)
        F.normalize(torch.mv(matrix.H, self._u), dim=0, out=self._v)

    def forward(self, weight: Tensor) -> Tensor:
        """(C_out, C_in, k, k) → the same."""
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.flatten(1)
            if self.training:
                self._iterate(matrix)
            u, v = self._u.clone(), self._v.clone()  # a second forward before the backward changes them
            return weight / torch.vdot(u, torch.mv(matrix, v))


class SpectralNormConv2d(Conv2d):
    """Convolution with `SpectralNorm`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        nn.init.normal_(self.weight, 0.0, INIT_STD)  # before the first power iterations, which start from it
        register_parametrization(self, "weight", SpectralNorm(self.weight))


def make_norm(norm: str, channels: int, statistics: str = "image", affine: bool = True) -> nn.Module:
    """`"instance"`, with scales and offsets where `affine`, `"batch"` (see `BatchNorm2d`) or `"none"`."""
    check_choice("norm", norm, NORMS)
    if norm == "instance":
        return nn.InstanceNorm2d(channels, affine=affine)
    return BatchNorm2d(channels, statistics) if norm == "batch" else nn.Identity()


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
        check_choice("activation", activation, ("relu", "leaky_relu", "none"))
        activations = {"relu": nn.ReLU(inplace=True), "leaky_relu": nn.LeakyReLU(LEAKY_SLOPE, inplace=True)}
        self.activation = activations.get(activation, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H', W'); H' = H/2 at the default k4 s2 p1."""
        return self.activation(self.norm(self.conv(x)))


def make_upsampling(upsampling: str, in_channels: int, out_channels: int, bias: bool) -> nn.Module:
    """(N, C_in, H, W) → (N, C_out, 2H, 2W): `"transposed"` (k4 s2 p1) or `"resize"` (`ResizeConv`)."""
    if upsampling == "transposed":
        return ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=bias)
    return ResizeConv(in_channels, out_channels, bias)


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


# --- arguments ---
#
# A stranger's `config.json` reaches the constructors as it is. Each check raises `ValueError` naming the argument, what
# came and what is allowed. The upper bounds are far above anything useful; they keep an absurd value from costing time
# or memory.


def check_count(name: str, value: Any, least: int, most: int) -> None:
    """A whole number from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected a whole number from {least} to {most}.")


def check_choice(name: str, value: Any, choices: Sequence[str | int]) -> None:
    """One of `choices`, of their type."""
    if type(value) is not type(choices[0]) or value not in choices:
        allowed = " or ".join([", ".join(map(repr, choices[:-1])), repr(choices[-1])])
        raise ValueError(f"{name} {reprlib.repr(value)} is unknown: expected {allowed}.")


def check_switch(name: str, value: Any) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected true or false.")


def check_generator(
    in_channels: Any,
    out_channels: Any,
    base_channels: Any,
    norm: Any,
    norm_statistics: Any,
    upsampling: Any,
    dropout: Any,
) -> None:
    """What all generators take: channel counts, norm (only batch norm has running statistics), upsampling, dropout."""
    check_count("in_channels", in_channels, 1, MAX_IMAGE_CHANNELS)
    check_count("out_channels", out_channels, 1, MAX_IMAGE_CHANNELS)
    check_count("base_channels", base_channels, 1, MAX_BASE_CHANNELS)
    check_choice("norm", norm, NORMS)
    check_choice("norm_statistics", norm_statistics, ("image", "running"))
    if norm_statistics == "running" and norm != "batch":
        raise ValueError(f"norm_statistics is 'running', which norm {norm!r} has none of: expected 'image'.")
    check_choice("upsampling", upsampling, UPSAMPLINGS)
    if not isinstance(dropout, int | float) or isinstance(dropout, bool) or not 0 <= dropout < 1:
        raise ValueError(f"dropout is {reprlib.repr(dropout)}, expected a number of at least 0 and below 1.")
