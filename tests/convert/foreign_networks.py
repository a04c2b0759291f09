"""The generators of pytorch-CycleGAN-and-pix2pix, written here from the description of their layers, in small: what
their checkpoints hold and compute. Layers stand where theirs stand, so that the names of the tensors are theirs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

Norm = str  # "batch", "instance" (without parameters, after convolutions with a bias) or "none"


def norm_layer(norm: Norm, channels: int, tracked: bool = False) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.InstanceNorm2d(channels, track_running_stats=tracked)


class UNetLevel(nn.Module):
    """One level of pytorch-CycleGAN-and-pix2pix's U-Net, around the next; activations work in place, as theirs."""

    def __init__(
        self,
        outer: int,
        inner: int,
        inside: nn.Module | None,
        norm: Norm,
        source: int | None = None,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        bias = norm == "instance"
        self.outermost = source is not None
        down = nn.Conv2d(source or outer, inner, 4, 2, 1, bias=bias)
        up = nn.ConvTranspose2d(inner if inside is None else 2 * inner, outer, 4, 2, 1, bias=bias or self.outermost)
        layers: list[nn.Module] = [] if self.outermost else [nn.LeakyReLU(0.2, inplace=True)]
        layers.append(down)
        if inside is not None:
            layers += [inside] if self.outermost else [norm_layer(norm, inner), inside]
        layers += [nn.ReLU(inplace=True), up, nn.Tanh() if self.outermost else norm_layer(norm, outer)]
        self.model = nn.Sequential(*layers, *([nn.Dropout(0.5)] if dropout else []))

    def forward(self, x: Tensor) -> Tensor:
        made = self.model(x)
        return made if self.outermost else torch.cat([x, made], 1)


class CycleGANUNet(nn.Module):
    """`unet_256` with 8 downs, `unet_128` with 7."""

    def __init__(self, downs: int, norm: Norm, width: int = 4, source: int = 3, target: int = 3) -> None:
        super().__init__()
        widths = [width * min(2**depth, 8) for depth in range(downs)]
        level = UNetLevel(widths[-2], widths[-1], None, norm)
        for depth in range(downs - 2, 0, -1):
            level = UNetLevel(widths[depth - 1], widths[depth], level, norm, dropout=depth >= 4)
        self.model = UNetLevel(target, widths[0], level, norm, source=source)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class CycleGANBlock(nn.Module):
    def __init__(self, channels: int, norm: Norm, dropout: bool, tracked: bool) -> None:
        super().__init__()
        bias = norm == "instance"
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            norm_layer(norm, channels, tracked),
            nn.ReLU(inplace=True),
            *([nn.Dropout(0.5)] if dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            norm_layer(norm, channels, tracked),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class CycleGANResNet(nn.Module):
    """`resnet_9blocks` or `resnet_6blocks`; `resized` enlarges with nn.Upsample, padding and a convolution."""

    def __init__(
        self,
        blocks: int,
        norm: Norm,
        width: int = 4,
        dropout: bool = False,
        tracked: bool = False,
        resized: bool = False,
    ) -> None:
        super().__init__()
        bias = norm == "instance"

        def up(before: int) -> list[nn.Module]:
            if not resized:
                return [nn.ConvTranspose2d(before, before // 2, 3, 2, 1, output_padding=1, bias=bias)]
            return [nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(before, before // 2, 3)]

        def then(channels: int) -> list[nn.Module]:
            return [norm_layer(norm, channels, tracked), nn.ReLU(inplace=True)]

        self.model = nn.Sequential(
            *[nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=bias), *then(width)],
            *[nn.Conv2d(width, 2 * width, 3, 2, 1, bias=bias), *then(2 * width)],
            *[nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=bias), *then(4 * width)],
            *[CycleGANBlock(4 * width, norm, dropout, tracked) for _ in range(blocks)],
            *[*up(4 * width), *then(2 * width), *up(2 * width), *then(width)],
            *[nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()],
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def give_weights(network: nn.Module, images: Tensor) -> None:
    """Weights that make something of their input, and the statistics of some images."""
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        else:
            nn.init.normal_(parameter, 0.0 if name.endswith("bias") else 1.0, 0.2)
    network.train()
    with torch.no_grad():
        for _ in range(4):
            network(images)


def set_test_mode(network: nn.Module, statistics: str) -> None:
    """As those projects test: with "image" norms stay in training mode. Dropout is off either way."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d):
            module.train(statistics == "image")


def save(network: nn.Module, path: Path, prefix: str = "") -> Path:
    torch.save({prefix + name: tensor for name, tensor in network.state_dict().items()}, path)
    return path
