"""A large image in overlapping tiles, blended, in memory that does not grow with the image.

Tiles start at multiples of the generator's `size_multiple`, so that its strided convolutions meet the same pixels as in
the whole image. docs/tiling.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pix2pix_hub.errors import UserError
from pix2pix_hub.inference.inputs import Prepared
from pix2pix_hub.inference.padding import Axis
from pix2pix_hub.inference.results import Canvas

TILE_SIZE = 1024  # pixels
TILE_OVERLAP = 256  # pixels
OUTER = 0.25  # part of an overlap, at either end, in which only the other tile counts

Forward = Callable[[Tensor, Sequence[int]], Tensor]
"""A batch of tiles `(N, C, h, w)` and their numbers → what the generator makes of them, float32 on the CPU."""


@dataclass(frozen=True, eq=False)
class Cut:
    """One tile's place along one axis."""

    start: int
    weights: Tensor  # of its rows (or columns) in the blend; those of all tiles add up to 1


@dataclass(frozen=True)
class TileGrid:
    """Where the tiles of a padded image lie."""

    rows: list[Cut]
    columns: list[Cut]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)


def check_tile_options(tile_size: int, tile_overlap: int) -> None:
    """Raises `UserError` where tiles would not get on."""
    if tile_size < 1 or not 0 <= tile_overlap <= tile_size // 2:
        raise UserError(
            f"tile_size {tile_size} with tile_overlap {tile_overlap}: expected an overlap from 0 to half the tile."
        )


def make_grid(rows: Axis, columns: Axis, tile_size: int, tile_overlap: int, multiple: int) -> TileGrid:
    """As few tiles of at most `tile_size` (rounded down to a multiple, but at least 2) as cover the image."""
    return TileGrid(
        cuts_along(rows.padded, tile_size, tile_overlap, multiple),
        cuts_along(columns.padded, tile_size, tile_overlap, multiple),
    )


def cuts_along(length: int, tile_size: int, overlap: int, multiple: int) -> list[Cut]:
    """Tiles of one length at even distances, with at least `overlap` in common, both in multiples."""
    whole, tile, shared = length // multiple, max(2, tile_size // multiple), -(-overlap // multiple)
    shared = min(shared, tile - 1)
    count = max(1, -(-(whole - shared) // (tile - shared)))
    tile = -(-(whole + (count - 1) * shared) // count)
    starts = [multiple * (number * (whole - tile) // max(1, count - 1)) for number in range(count)]
    return _weighted(starts, tile * multiple, length)


def _weighted(starts: list[int], tile: int, length: int) -> list[Cut]:
    """A ramp across the middle of each overlap."""
    windows = []
    for number, start in enumerate(starts):
        window = torch.ones(tile, dtype=torch.float64)
        if number:
            window *= _ramp(starts[number - 1] + tile - start, tile)
        if number + 1 < len(starts):
            window *= _ramp(start + tile - starts[number + 1], tile).flip(0)
        windows.append(window)
    total = torch.zeros(length, dtype=torch.float64)
    for start, window in zip(starts, windows, strict=True):
        total[start : start + tile] += window
    return [
        Cut(start, (window / total[start : start + tile]).float())
        for start, window in zip(starts, windows, strict=True)
    ]


def _ramp(overlap: int, tile: int) -> Tensor:
    """From 0 to 1 over the first `overlap` of `tile` pixels, flat at its ends."""
    places = (torch.arange(tile, dtype=torch.float64) + 0.5) / max(1, overlap)
    return ((places - OUTER) / (1.0 - 2.0 * OUTER)).clamp(0.0, 1.0)


def translate_tiles(
    image: Prepared, rows: Axis, columns: Axis, grid: TileGrid, canvas: Canvas, forward: Forward, batch_size: int
) -> Iterator[int]:
    """Fill `canvas` from top to bottom, a row of tiles at a time; yields the number of tiles of each batch done."""
    height = len(grid.rows[0].weights)
    band: Tensor | None = None
    for number, row in enumerate(grid.rows):
        for at in range(0, len(grid.columns), batch_size):
            cuts = grid.columns[at : at + batch_size]
            numbers = [number * len(grid.columns) + at + place for place in range(len(cuts))]
            made = forward(torch.stack([_tile(image, rows, columns, row, cut) for cut in cuts]), numbers)
            if band is None:
                band = torch.zeros(made.shape[1], height, columns.padded)
            for tile, cut in zip(made, cuts, strict=True):
                span = slice(cut.start, cut.start + len(cut.weights))
                band[:, :, span] += tile * row.weights[:, None] * cut.weights
            yield len(cuts)
        assert band is not None
        following = grid.rows[number + 1].start if number + 1 < len(grid.rows) else rows.padded
        _write(band[:, : following - row.start], row.start, rows, columns, canvas)
        band = torch.cat([band[:, following - row.start :], torch.zeros_like(band[:, : following - row.start])], 1)


def _tile(image: Prepared, rows: Axis, columns: Axis, row: Cut, column: Cut) -> Tensor:
    return image.piece(
        rows.index[row.start : row.start + len(row.weights)],
        columns.index[column.start : column.start + len(column.weights)],
    )


def _write(band: Tensor, top: int, rows: Axis, columns: Axis, canvas: Canvas) -> None:
    """The part of finished padded rows that belongs to the image."""
    first, last = max(top, rows.before), min(top + band.shape[1], rows.before + rows.size)
    if first < last:
        inside = band[:, first - top : last - top, columns.before : columns.before + columns.size]
        canvas.write(first - rows.before, inside)
