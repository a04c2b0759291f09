"""A generator in three parts: two that see the image piece by piece, and between them one that sees it whole.

The maps deep inside a U-Net are small even where the image is large. So its first encoder stages and its last decoder
stages run over pieces, with a margin as wide as they can see; what lies between them runs once, over the whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pix2pix_hub.models import ConvBlock, UNetGenerator

BODY_BYTES = 2**30  # that the whole maps may take; above, the split is made further inside
BODY_MAPS = 6  # of the split's size and number of channels, in memory at the same time
MARGIN = 2  # pixels of the split's map that a piece looks beyond its core: each stage reaches one further


class UNetSplit:
    """A U-Net whose encoder stages beyond `level`, and as many decoder stages, see the whole image.

    Args:
        generator: the network.
        level: 1 to its number of encoder stages. A pixel of the map there is `2**level` pixels of the image wide.
    """

    def __init__(self, generator: UNetGenerator, level: int) -> None:
        assert 1 <= level <= len(generator.encoder)
        self.generator, self.level = generator, level
        self.factor = 2**level
        self.margin = MARGIN * self.factor
        edge = generator.encoder[level - 1]
        assert isinstance(edge, ConvBlock)
        self.edge = edge  # the stage that the split goes through
        self.outer_encoder = generator.encoder[: level - 1]
        self.inner_encoder = generator.encoder[level:]
        self.inner_decoder = generator.decoder[: len(self.inner_encoder)]
        self.outer_decoder = generator.decoder[len(self.inner_encoder) :]

    def streamed_layers(self) -> list[nn.Module]:
        """All that `head` and `tail` run."""
        return [layer for part in (self.outer_encoder, self.outer_decoder) for layer in part.modules()]

    def head(self, source: Tensor) -> Tensor:
        """`(1, C, h, w)` → the map of the split, `factor` times smaller, before its norm."""
        x, _ = self._encode(source, self.outer_encoder)
        return self.edge.conv(x)

    def body(self, x: Tensor) -> Tensor:
        """The whole map of the split, before its norm → what the outer decoder stages read."""
        x = self.edge.activation(self.edge.norm(x))
        x, skips = self._encode(x, self.inner_encoder, [F.relu(x)])
        x = self.generator.bottleneck(skips.pop())
        return self._decode(x, self.inner_decoder, skips)

    def tail(self, x: Tensor, source: Tensor) -> Tensor:
        """A piece of what `body` made, and of the source → `(1, C, h, w)` in [-1, 1]."""
        _, skips = self._encode(source, self.outer_encoder)
        return torch.tanh(self.generator.output(self._decode(x, self.outer_decoder, skips)))

    def _encode(
        self, x: Tensor, stages: nn.ModuleList, skips: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        skips = skips or []
        for stage in stages:
            x = stage(x)
            skips.append(F.relu(x))
        return x, skips

    def _decode(self, x: Tensor, stages: nn.ModuleList, skips: list[Tensor]) -> Tensor:
        for stage in stages:
            x = torch.cat([stage(x), skips.pop()], dim=1)
        return x

    @property
    def channels(self) -> int:
        """Of the map of the split."""
        return self.edge.conv.out_channels


def split_for(generator: UNetGenerator, height: int, width: int) -> UNetSplit:
    """The split nearest to the image whose whole maps fit into `BODY_BYTES`."""
    value_bytes = next(generator.parameters()).element_size()
    for level in range(1, len(generator.encoder)):
        split = UNetSplit(generator, level)
        if BODY_MAPS * split.channels * value_bytes * height * width <= BODY_BYTES * split.factor**2:
            return split
    return UNetSplit(generator, len(generator.encoder))
