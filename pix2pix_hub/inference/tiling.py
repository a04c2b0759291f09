"""A large image in tiles, with the result that the whole would have: no seams to hide, in bounded memory.

The maps deep inside a generator are small even where the image is large. So its first and last stages run over tiles,
with a margin as wide as their results depend on; what lies between them runs once, over the whole. Norm layers use
statistics of the whole image. docs/tiling.md says what was measured, and what else was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pix2pix_hub.models.base import Generator, SeededDropout
from pix2pix_hub.models.generators import NormedConv, ResNetGenerator, UNetGenerator
from pix2pix_hub.models.layers import BatchNorm2d, ConvBlock

TILE_SIZE, LEAST_TILE = 1024, 64  # pixels: by default, and at least
CPU_BODY_BYTES, ACCELERATOR_BODY_BYTES = 2**30, 2**33  # that whole maps may take; above, less is done whole
BODY_MAPS = 6  # as large as the one that `body` gets, in memory at the same time
UNET_MARGIN, RESNET_MARGIN = 1, 2  # pixels of the split's map that the tail, or the head of a neighbour, depends on

# ---------------------------------------------------------------------------------------------------------- tiles


class Span(NamedTuple):
    """A tile's place along one axis, in pixels of the padded image."""

    window: slice  # what is looked at
    core: slice  # the part of it whose result counts; the cores of all tiles make up the image


class Tile(NamedTuple):
    """A rectangle of an image."""

    rows: Span
    columns: Span

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns that are looked at."""
        return self.rows.window, self.columns.window

    def core_of(self, made: Tensor) -> Tensor:
        """Cut the part that counts from a map `(…, h, w)` of the window, at any scale."""
        factor = (self.rows.window.stop - self.rows.window.start) // made.shape[-2]
        rows, columns = (
            slice((core.start - window.start) // factor, (core.stop - window.start) // factor) for window, core in self
        )
        return made[..., rows, columns]


def spans(length: int, tile_size: int, factor: int, margin: int) -> list[Span]:
    """Along one axis: cores of at most `tile_size` that begin at multiples of `factor`, as few and as even as can be;
    windows of `margin` more at both ends, where the image goes on."""
    units = length // factor
    count = -(-units // max(1, tile_size // factor))
    borders = [factor * (units * number // count) for number in range(count + 1)]
    return [
        Span(slice(max(0, start - margin), min(length, stop + margin)), slice(start, stop))
        for start, stop in zip(borders, borders[1:], strict=False)
    ]


# ------------------------------------------------------------------------------------------- a generator in parts


@dataclass(frozen=True, eq=False)
class Partition:
    """A generator in parts, which together compute what its `forward` does."""

    factor: int  # tiles lie at multiples of so many pixels, and the map of the split is so many times smaller
    margin: int  # pixels that a tile has to look beyond its core
    streamed: Sequence[nn.Module]  # the modules that see tiles
    tail: Callable[[Tensor, Tensor], Tensor]  # a tile of what `body` made, and of the source → (1, C, h, w) in [-1, 1]
    channels: int = 0  # of the map of the split
    head: Callable[[Tensor], Tensor] | None = None  # (1, C, h, w) → that map, before its norm; None: all in `tail`
    body: Callable[[Tensor], Tensor] = nn.Identity()  # that map of the whole image → what `tail` reads

    @property
    def norms(self) -> list[nn.Module]:
        """The norm layers inside `streamed` that take statistics from the image, not from training."""
        layers = (layer for module in self.streamed for layer in module.modules())
        of_image = lambda layer: isinstance(layer, BatchNorm2d) and layer.statistics == "image"  # noqa: E731
        return [layer for layer in layers if isinstance(layer, nn.InstanceNorm2d) or of_image(layer)]

    def tiles(self, size: tuple[int, int], tile_size: int) -> list[Tile]:
        """Cut a padded image of some height and width into tiles, from the upper left."""
        rows, columns = (spans(length, tile_size, self.factor, self.margin) for length in size)
        return [Tile(row, column) for row in rows for column in columns]

    @property
    def passes(self) -> int:
        """Over all tiles: one for each norm layer, one for the inner map and one for the result."""
        return len(self.norms) + (1 if self.head is None else 2)


def unet_partition(generator: UNetGenerator, level: int) -> Partition:
    """A U-Net whose encoder stages beyond `level` (from 1), and as many decoder stages, see the whole image."""
    edge = generator.encoder[level - 1]  # the stage that the split goes through, before its norm
    assert isinstance(edge, ConvBlock)
    outer_encoder, inner_encoder = generator.encoder[: level - 1], generator.encoder[level:]
    inner_stages = len(inner_encoder)
    inner_decoder, outer_decoder = generator.decoder[:inner_stages], generator.decoder[inner_stages:]

    def encode(x: Tensor, stages: nn.ModuleList, *skips: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Run encoder stages as the generator's `forward` does; skips come after those given."""
        kept = list(skips)
        for stage in stages:
            x = stage(x)
            kept.append(F.relu(x))
        return x, kept

    def decode(x: Tensor, stages: nn.ModuleList, skips: list[Tensor]) -> Tensor:
        for stage in stages:
            x = torch.cat([stage(x), skips.pop()], dim=1)
        return x

    def head(source: Tensor) -> Tensor:
        return edge.conv(encode(source, outer_encoder)[0])

    def body(x: Tensor) -> Tensor:
        x = edge.activation(edge.norm(x))
        x, skips = encode(x, inner_encoder, F.relu(x))
        return decode(generator.bottleneck(skips.pop()), inner_decoder, skips)

    def tail(x: Tensor, source: Tensor) -> Tensor:
        _, skips = encode(source, outer_encoder)
        return torch.tanh(generator.output(decode(x, outer_decoder, skips)))

    factor = 2**level
    streamed = (outer_encoder, outer_decoder)
    return Partition(factor, UNET_MARGIN * factor, streamed, tail, edge.conv.out_channels, head, body)


def resnet_partition(generator: ResNetGenerator) -> Partition:
    """A ResNet whose residual blocks see the whole image."""
    edge, outer = generator.encoder[-1], generator.encoder[:-1]
    assert isinstance(edge, NormedConv) and isinstance(edge.conv, nn.Conv2d)

    def head(source: Tensor) -> Tensor:
        x = generator.stem(source).relu()
        for stage in outer:
            x = stage(x).relu()
        return edge.conv(x)

    def body(x: Tensor) -> Tensor:
        x = edge.norm(x).relu()
        for block in generator.blocks:
            x = block(x)
        return x

    def tail(x: Tensor, source: Tensor) -> Tensor:
        for stage in generator.decoder:
            x = stage(x).relu()
        return torch.tanh(generator.output(x))

    factor = generator.size_multiple
    streamed = (generator.stem, outer, generator.decoder)
    return Partition(factor, RESNET_MARGIN * factor, streamed, tail, edge.conv.out_channels, head, body)


def partitions_of(generator: Generator) -> Iterator[Partition]:
    """All partitions, from the one that does most whole to the one that takes least memory."""
    if isinstance(generator, UNetGenerator):
        yield from (unet_partition(generator, level) for level in range(1, len(generator.encoder) + 1))
    else:
        assert isinstance(generator, ResNetGenerator)
        yield resnet_partition(generator)
        # nothing but tiles: slow, since every norm layer takes a pass over the image, but without a map of the whole
        factor = generator.size_multiple
        margin = (2 * RESNET_MARGIN + 2 * len(generator.blocks)) * factor  # two convolutions a block
        yield Partition(factor, margin, (generator,), lambda x, source: generator(source))


def partition_for(generator: Generator, height: int, width: int) -> Partition:
    """The partition nearest to the image whose whole maps do not take too much memory; the same on every machine."""
    weight = next(generator.parameters())
    limit = CPU_BODY_BYTES if weight.device.type == "cpu" else ACCELERATOR_BODY_BYTES
    *partitions, last = partitions_of(generator)
    for partition in partitions:
        if BODY_MAPS * partition.channels * weight.element_size() * height * width // partition.factor**2 <= limit:
            return partition
    return last


# ------------------------------------------------------------------------------------------ statistics of the whole


class _MeasuredInstead(Exception):
    """A norm layer was reached whose statistics were not known yet: ends a forward, is no error."""


# Pixels seen, mean and sum of squared deviations of each channel, `(C,)` in float64
_NO_MOMENTS = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)


class StreamedNorms:
    """Norm layers that see an image tile by tile and normalise by the statistics of the whole.

    Instance norm takes mean and variance over all pixels of a map. In a tile they are others than in the whole (a piece
    of blank wall has no contrast at all), so that each tile would be painted in a style of its own. Inside this context
    `sweep` finds out those of the whole, layer by layer.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self.layers = list(layers)
        self._scale_shift: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self._tile: Tile | None = None
        self._layer: nn.Module | None = None  # that is being measured
        self._moments = _NO_MOMENTS  # of that layer's input so far

    def __enter__(self) -> StreamedNorms:
        for layer in self.layers:
            layer.forward = partial(self._normalise, layer)
        return self

    def __exit__(self, *error: object) -> None:
        for layer in self.layers:
            del layer.forward

    def sweep(
        self, tiles: Sequence[Tile], run: Callable[[Tile], object], step: Callable[[int], object], start: int = 0
    ) -> None:
        """Run over all tiles, once for each layer met whose statistics are not known, and at last to the end.

        `step` is called after each tile of each pass, with how many tiles of it have been seen; the first pass begins
        after `start` of them.
        """
        while True:
            for number, tile in enumerate(tiles[start:], start + 1):
                self._tile = tile
                with suppress(_MeasuredInstead):
                    run(tile)
                step(number)
            if self._layer is None:
                return
            self._settle()
            start = 0

    def state_dict(self) -> dict[str, Any]:
        """Which statistics are known, and those that are being measured."""
        known = {self.layers.index(layer): parts for layer, parts in self._scale_shift.items()}
        return {"known": known, "layer": self._layer and self.layers.index(self._layer), "moments": self._moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._scale_shift = {self.layers[number]: parts for number, parts in state["known"].items()}
        self._layer = None if state["layer"] is None else self.layers[state["layer"]]
        self._moments = state["moments"]

    def _normalise(self, layer: nn.Module, x: Tensor) -> Tensor:
        """In place of the layer's forward."""
        if layer not in self._scale_shift:
            assert self._tile is not None and self._layer in (None, layer)
            self._layer = layer
            self._measure(self._tile.core_of(x))
            raise _MeasuredInstead
        scale, shift = (part.to(x.device) for part in self._scale_shift[layer])
        return torch.addcmul(shift, x.float(), scale).to(x.dtype)

    def _measure(self, x: Tensor) -> None:
        """Add the moments of `(1, C, h, w)` (Chan et al. 1979: exact, and safe where the mean is large)."""
        # on the CPU, since not every accelerator has float64
        variance, mean = (part.cpu().double() for part in torch.var_mean(x.float(), (0, 2, 3), correction=0))
        count, (count_before, mean_before, squares) = x[0, 0].numel(), self._moments
        total, delta = count_before + count, mean - mean_before
        squares = squares + variance * count + delta.square() * (count_before * count / total)
        self._moments = total, mean_before + delta * (count / total), squares

    def _settle(self) -> None:
        """All tiles have been seen: from now on the layer can normalise."""
        layer, (count, mean, squares) = self._layer, self._moments
        assert isinstance(layer, nn.InstanceNorm2d | BatchNorm2d)
        scale = (squares / count + layer.eps).rsqrt()
        shift = -mean * scale
        if layer.weight is not None:
            weight, bias = layer.weight.cpu().double(), layer.bias.cpu().double()
            scale, shift = scale * weight, shift * weight + bias
        self._scale_shift[layer] = scale.float()[:, None, None], shift.float()[:, None, None]
        self._layer, self._moments = None, _NO_MOMENTS


# ------------------------------------------------------------------------------------------------- putting together


@dataclass(frozen=True)
class Journal:
    """Where a translation stands, so that one that was stopped can go on, and end with the same pixels.

    Attributes:
        found: the state that was kept last, its tensors on the CPU; None: it begins.
        keep: called after each tile, with what makes the present state: to be called, and kept, or not.
    """

    found: dict[str, Any] | None
    keep: Callable[[Callable[[], dict[str, Any]]], object]


def translate_in_tiles(
    partition: Partition,
    size: tuple[int, int],
    tile_size: int,
    read: Callable[[slice, slice], Tensor],
    write: Callable[[int, int, Tensor], object],
    dropout: SeededDropout | None,
    step: Callable[[int], object],
    journal: Journal | None = None,
) -> None:
    """Make an image tile by tile.

    Args:
        partition: the generator in parts.
        size: height and width of the padded image.
        tile_size: of cores, at most.
        read: rows and columns → source pixels `(1, C, h, w)`, where the network is.
        write: takes row and column of the upper left corner, and float32 `(C, h, w)` in [-1, 1], where the network is.
        dropout: active, told which window the network is about to see.
        step: called after each tile of each pass, with 1; at first with how many there were before.
        journal: takes down what has been done.
    """
    factor, tiles = partition.factor, partition.tiles(size, tile_size)
    inner = torch.empty(0)
    done, in_tail, start = 0, partition.head is None, 0  # tiles of all passes; which pass; its first tile

    def at_split(*slices: slice) -> list[slice]:
        return [slice(span.start // factor, span.stop // factor) for span in slices]

    def source(tile: Tile) -> Tensor:
        if dropout is not None:
            dropout.size, dropout.window = size, tile.window
        return read(*tile.window)

    def head(tile: Tile) -> None:
        nonlocal inner
        assert partition.head is not None
        made = partition.head(source(tile))
        if not inner.numel():
            inner = made.new_empty(1, made.shape[1], *(length // factor for length in size))
        rows, columns = at_split(tile.rows.core, tile.columns.core)
        inner[..., rows, columns] = tile.core_of(made)

    def tail(tile: Tile) -> None:
        rows, columns = at_split(*tile.window)
        made = partition.tail(inner if partition.head is None else inner[..., rows, columns], source(tile))
        write(tile.rows.core.start, tile.columns.core.start, tile.core_of(made)[0].float())

    with StreamedNorms(partition.norms) as norms:

        def seen(number: int) -> None:
            nonlocal done
            done += 1
            state = lambda: {  # noqa: E731
                "done": done, "in_tail": in_tail, "start": number, "inner": inner.cpu(), "norms": norms.state_dict()
            }  # fmt: skip
            if journal is not None:
                journal.keep(state)
            step(1)

        if journal is not None and journal.found is not None:
            done, in_tail, start = (journal.found[name] for name in ("done", "in_tail", "start"))
            norms.load_state_dict(journal.found["norms"])
            if (inner := journal.found["inner"]).numel():
                inner = inner.to(source(tiles[0]).device)
            step(done)
        if not in_tail:
            norms.sweep(tiles, head, seen, start)
            if dropout is not None:
                dropout.window = None
            inner, in_tail, start = partition.body(inner), True, 0
        norms.sweep(tiles, tail, seen, start)
