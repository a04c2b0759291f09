"""A generator in parts: some see the image piece by piece, and between them one sees it whole.

The maps deep inside a generator are small even where the image is large. So its first and last stages run over pieces,
with a margin as wide as their results depend on; what lies between them runs once, over the whole. Together they
compute what the generator's own `forward` does, which the tests hold them to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pix2pix_hub.models.base import Generator
from pix2pix_hub.models.generators import NormedConv, ResNetGenerator, UNetGenerator
from pix2pix_hub.models.layers import ConvBlock

CPU_BODY_BYTES, ACCELERATOR_BODY_BYTES = 2**30, 2**33  # that whole maps may take; above, less is done whole
BODY_MAPS = 6  # as large as the one that `body` gets, in memory at the same time
UNET_MARGIN, RESNET_MARGIN = (
    1,
    2,
)  # pixels of the split's map that it depends on beyond a core, and that the output does


class Split(ABC):
    """A generator in parts.

    Attributes:
        factor: pieces lie at multiples of so many pixels, and the map of the split is so many times smaller.
        margin: pixels that a piece has to look beyond its core.
        channels: of the map of the split.
        has_body: whether a part sees the whole; without, `head` and `body` are not used.
    """

    factor: int
    margin: int
    channels: int
    has_body = True

    @abstractmethod
    def streamed(self) -> Iterable[nn.Module]:
        """The modules that see pieces."""

    @abstractmethod
    def head(self, source: Tensor) -> Tensor:
        """`(1, C, h, w)` → the map of the split, before its norm."""

    @abstractmethod
    def body(self, x: Tensor) -> Tensor:
        """That map of the whole image → what `tail` reads."""

    @abstractmethod
    def tail(self, x: Tensor | None, source: Tensor) -> Tensor:
        """A piece of what `body` made, and of the source → `(1, C, h, w)` in [-1, 1]."""

    def layers(self) -> list[nn.Module]:
        """All layers inside `streamed`."""
        return [layer for module in self.streamed() for layer in module.modules()]


class UNetSplit(Split):
    """A U-Net whose encoder stages beyond `level` (from 1), and as many decoder stages, see the whole image."""

    def __init__(self, generator: UNetGenerator, level: int) -> None:
        edge = generator.encoder[level - 1]
        assert isinstance(edge, ConvBlock)
        self.generator, self.edge = generator, edge  # the stage that the split goes through, before its norm
        self.factor, self.margin = 2**level, UNET_MARGIN * 2**level
        self.channels = edge.conv.out_channels
        self.outer_encoder, self.inner_encoder = generator.encoder[: level - 1], generator.encoder[level:]
        self.inner_decoder = generator.decoder[: len(self.inner_encoder)]
        self.outer_decoder = generator.decoder[len(self.inner_encoder) :]

    def streamed(self) -> Iterable[nn.Module]:
        return self.outer_encoder, self.outer_decoder

    def head(self, source: Tensor) -> Tensor:
        x, _ = self._encode(source, self.outer_encoder)
        return self.edge.conv(x)

    def body(self, x: Tensor) -> Tensor:
        x = self.edge.activation(self.edge.norm(x))
        x, skips = self._encode(x, self.inner_encoder, self._skip(x))
        x = self.generator.bottleneck(skips.pop())
        return self._decode(x, self.inner_decoder, skips)

    def tail(self, x: Tensor | None, source: Tensor) -> Tensor:
        assert x is not None
        _, skips = self._encode(source, self.outer_encoder)
        return torch.tanh(self.generator.output(self._decode(x, self.outer_decoder, skips)))

    def _encode(self, x: Tensor, stages: nn.ModuleList, *skips: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As the generator's `forward`; skips come after those given."""
        kept = list(skips)
        for stage in stages:
            x = stage(x)
            kept.append(self._skip(x))
        return x, kept

    def _skip(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def _decode(self, x: Tensor, stages: nn.ModuleList, skips: list[Tensor]) -> Tensor:
        for stage in stages:
            x = torch.cat([stage(x), skips.pop()], dim=1)
        return x


class ResNetSplit(Split):
    """A ResNet whose residual blocks see the whole image."""

    def __init__(self, generator: ResNetGenerator) -> None:
        edge = generator.encoder[-1]
        assert isinstance(edge, NormedConv) and isinstance(edge.conv, nn.Conv2d)
        self.generator, self.edge = generator, edge
        self.factor, self.margin = generator.size_multiple, RESNET_MARGIN * generator.size_multiple
        self.channels = edge.conv.out_channels

    def streamed(self) -> Iterable[nn.Module]:
        return self.generator.stem, self.generator.encoder[:-1], self.generator.decoder

    def head(self, source: Tensor) -> Tensor:
        x = self.generator.stem(source).relu()
        for stage in self.generator.encoder[:-1]:
            x = stage(x).relu()
        return self.edge.conv(x)

    def body(self, x: Tensor) -> Tensor:
        x = self.edge.norm(x).relu()
        for block in self.generator.blocks:
            x = block(x)
        return x

    def tail(self, x: Tensor | None, source: Tensor) -> Tensor:
        assert x is not None
        for stage in self.generator.decoder:
            x = stage(x).relu()
        return torch.tanh(self.generator.output(x))


class ResNetPieces(Split):
    """A ResNet that sees nothing but pieces: slow, since every norm layer takes a pass over the image, but without a
    map of the whole."""

    has_body = False

    def __init__(self, generator: ResNetGenerator) -> None:
        self.generator = generator
        self.factor, self.channels = generator.size_multiple, 0
        self.margin = (2 * RESNET_MARGIN + 2 * len(generator.blocks)) * self.factor  # two convolutions a block

    def streamed(self) -> Iterable[nn.Module]:
        return (self.generator,)

    def head(self, source: Tensor) -> Tensor:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def tail(self, x: Tensor | None, source: Tensor) -> Tensor:
        return self.generator(source)


def split_for(generator: Generator, height: int, width: int) -> Split:
    """The split nearest to the image whose whole maps do not take too much memory; the same on every machine."""
    weight = next(generator.parameters())
    limit = CPU_BODY_BYTES if weight.device.type == "cpu" else ACCELERATOR_BODY_BYTES
    splits = list(_splits_of(generator))
    for split in splits[:-1]:
        maps = BODY_MAPS * split.channels * weight.element_size() * height * width // split.factor**2
        if maps <= limit:
            return split
    return splits[-1]


def _splits_of(generator: Generator) -> Iterable[Split]:
    """From the one that does most whole to the one that takes least memory."""
    if isinstance(generator, UNetGenerator):
        return (UNetSplit(generator, level) for level in range(1, len(generator.encoder) + 1))
    assert isinstance(generator, ResNetGenerator)
    return ResNetSplit(generator), ResNetPieces(generator)
