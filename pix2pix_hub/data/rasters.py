"""Rasters of the same ground, two by two, as pairs: on one grid, in tiles, no pixel of which trains and validates.

The second raster of each two is brought onto the grid of the first. All is read through windows: memory follows from
the width of a raster, not from its area.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pix2pix_hub.config import TileOptions
from pix2pix_hub.image.raster import Window, bands_of, fill_of, looked_at, open_raster, rasterio_of, read_window
from pix2pix_hub.image.read import Decoded
from pix2pix_hub.util import UserError, counted

BLOCKS = 40  # about so many that the ground is dealt out in, so that a tenth of it is several places
MOST_CLASSES = 64


class Tile(NamedTuple):
    """A place in one of the pairs of rasters, in pixels of its first raster."""

    pair: int
    row: int
    column: int


@dataclass(frozen=True)
class Tiling:
    """Which tiles there are.

    Attributes:
        splits: name → tiles, in the order of the rasters, row by row.
        empty: tiles left out for nodata.
        straddling: tiles left out because they lie across the border between training and validation.
        resampling: how the second raster of each pair is brought onto the first's grid; None: they share one.
    """

    splits: dict[str, list[Tile]]
    empty: int
    straddling: int
    resampling: list[str | None]


# --- two rasters, one grid


@contextmanager
def opened(files: tuple[Path, Path], resampling: str | None) -> Iterator[tuple[Any, Any]]:
    """Open both, the second as it is on the grid of the first; `resampling` as `Tiling` has it."""
    rasterio = rasterio_of(files[0])
    with ExitStack() as stack:
        first, second = (stack.enter_context(open_raster(file)) for file in files)
        if resampling is not None:
            second = stack.enter_context(
                rasterio.vrt.WarpedVRT(
                    second,
                    crs=first.crs,
                    transform=first.transform,
                    width=first.width,
                    height=first.height,
                    resampling=rasterio.enums.Resampling[resampling],
                    add_alpha=second.nodata is None and len(bands_of(second)) == second.count,
                )
            )
        yield first, second


def resampling_of(files: tuple[Path, Path], wanted: str) -> str | None:
    """Tell how to bring the second onto the first's grid; None: it lies on it.

    Classes have nothing between them: nearest. Else the mean of what a pixel covers where the second raster is finer,
    and bilinear where it is not.

    Raises:
        UserError: they show different ground.
    """
    rasterio = rasterio_of(files[0])
    with open_raster(files[0]) as first, open_raster(files[1]) as second:
        if (first.crs, first.shape) == (second.crs, second.shape) and first.transform.almost_equals(second.transform):
            return None
        west, south, east, north = rasterio.warp.transform_bounds(second.crs, first.crs, *second.bounds)
        left, bottom, right, top = first.bounds
        if min(east, right) <= max(west, left) or min(north, top) <= max(south, bottom):
            raise UserError(
                f"{files[0]} and {files[1]} show different ground ({_ground(first.bounds)} and "
                f"{_ground((west, south, east, north))} in {first.crs}): give rasters of the same place."
            )
        if wanted != "auto":
            return wanted
        whole_numbers = second.count == 1 and second.dtypes[0] in ("uint8", "uint16", "int16")
        if whole_numbers and len(np.unique(looked_at(second).compressed())) <= MOST_CLASSES:
            return "nearest"
        pixels_across = second.width * (right - left) / (east - west)  # of the second, over the first's width
        return "average" if pixels_across > 1.5 * first.width else "bilinear"


def _ground(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:.6g}…{bounds[2]:.6g} by {bounds[1]:.6g}…{bounds[3]:.6g}"


# --- which tiles


def plan_tiles(pairs: Sequence[tuple[Path, Path]], options: TileOptions) -> Tiling:
    """Choose tiles with data in both rasters, and deal out the ground: places of it for validation, the rest to train.

    Raises:
        UserError: a raster cannot be used, rasters do not belong together, or there is nothing to tile or to deal out.
    """
    _check_alike(pairs)
    size, stride = options.size, options.stride or options.size
    resampling = [resampling_of(files, options.resampling) for files in pairs]
    tiles: list[Tile] = []
    empty, area = 0, 0
    for number, files in enumerate(pairs):
        with opened(files, resampling[number]) as (first, second):
            if min(first.shape) < size:
                raise UserError(
                    f"{files[0]} has {first.height}x{first.width} pixels: --size {size} (in training --image-size) "
                    "needs as many on each side."
                )
            area += first.height * first.width
            valid, seen = np.empty((0, first.width), bool), 0  # of `size` rows, each read once; rows read so far
            for row in _starts(first.height, size, stride):
                window = ((max(row, seen), row + size), (0, first.width))
                here = [raster.dataset_mask(window=window) > 0 for raster in (first, second)]
                valid, seen = np.concatenate([valid, here[0] & here[1]])[-size:], row + size
                for column in _starts(first.width, size, stride):
                    if 1 - valid[:, column : column + size].mean() <= options.max_nodata:
                        tiles.append(Tile(number, row, column))
                    else:
                        empty += 1
    if not tiles:
        raise UserError(
            f"of {counted(empty, 'tile')} none has data in both rasters in {1 - options.max_nodata:.0%} of its pixels: "
            "raise --max-nodata, lower --size, or check that both hold data in the same places."
        )
    splits, straddling = _deal_out(tiles, size * max(1, math.isqrt(area // BLOCKS) // size), options)
    return Tiling(splits, empty, straddling, resampling)


def _starts(extent: int, size: int, stride: int) -> list[int]:
    """Where tiles begin along a side. The last one is moved inwards, so that nothing is left beyond it."""
    return [*range(0, extent - size, stride), extent - size]


def _deal_out(tiles: Sequence[Tile], side: int, options: TileOptions) -> tuple[dict[str, list[Tile]], int]:
    """Give blocks of the ground, `side` pixels wide, to validation, at random, until they hold enough tiles.

    Returns:
        The splits, and how many tiles lie across the border of the two.
    """

    def blocks(tile: Tile) -> set[tuple[int, int, int]]:
        rows, columns = (range(at // side, (at + options.size - 1) // side + 1) for at in (tile.row, tile.column))
        return {(tile.pair, row, column) for row in rows for column in columns}

    homes = [blocks(tile) for tile in tiles]
    ground = sorted(set().union(*homes))
    chosen: set[tuple[int, int, int]] = set()
    for number in np.random.default_rng(options.seed).permutation(len(ground)):
        if sum(home <= chosen for home in homes) >= options.validation * len(tiles):
            break
        chosen.add(ground[number])
    splits: dict[str, list[Tile]] = {"train": [], "validation": []} if options.validation else {"train": []}
    straddling = 0
    for tile, home in zip(tiles, homes, strict=True):
        if home <= chosen:
            splits["validation"].append(tile)
        elif home & chosen:
            straddling += 1
        else:
            splits["train"].append(tile)
    if lacking := [name for name, members in splits.items() if not members]:
        raise UserError(
            f"{counted(len(tiles), 'tile')} in blocks of {side}x{side} pixels, which go to training or validation as a "
            f"whole, leave none for {lacking[0]}: lower --size (in training --image-size) or --validation, or give "
            "more rasters (--validation 0: all train)."
        )
    return splits, straddling


def _check_alike(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Raise `UserError` unless the rasters of each side have the same bands."""
    for side in (0, 1):
        forms = {}
        for files in pairs:
            with open_raster(files[side]) as raster:
                forms[files[side]] = f"{counted(raster.count, 'band')} of {raster.dtypes[0]}"
        if len(set(forms.values())) > 1:
            told = "; ".join(f"{file}: {form}" for file, form in forms.items())
            raise UserError(f"the rasters of one side need the same bands ({told}). Bring them into one form first.")


# --- rows


@dataclass(frozen=True)
class RasterRows:
    """Windows of rasters as rows of a set of pairs, read when they are decoded. Picklable."""

    pairs: Sequence[tuple[Path, Path]]
    windows: Sequence[tuple[int, Window]]  # number of the pair of rasters, rows and columns of its first
    resampling: Sequence[str | None]  # as `Tiling` has it
    fills: Sequence[Sequence[NDArray[Any] | None]]  # as `fill_of` has it, of both
    columns: tuple[str, str]  # what both are called
    column_names = ("name", "pair_files")

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """`name`, `pair_files`, and in both columns `path` and `read`, which gives a `Decoded`."""
        pair, ((top, _), (left, _)) = self.windows[number]
        files = self.pairs[pair]
        cells = {
            column: {"bytes": None, "path": str(files[side]), "read": partial(self._read, number, side)}
            for side, column in enumerate(self.columns)
        }
        names = [f"{file} at {top}, {left} (row, column)" for file in files]
        return {"name": names[0], "pair_files": names, **cells}

    def _read(self, number: int, side: int) -> Decoded:
        pair, window = self.windows[number]
        files = self.pairs[pair]
        with opened(files, self.resampling[pair]) as rasters:  # anew: what is open belongs to one thread
            return read_window(rasters[side], window, str(files[side]), self.fills[pair][side])

    @property
    def _fingerprint(self) -> str:
        """As data sets have it: what names a cache of the rows."""
        return repr((self.pairs, self.windows, self.resampling))


def window_rows(pairs: Sequence[tuple[Path, Path]], size: int, columns: tuple[str, str]) -> dict[str, RasterRows]:
    """Rows of each split, of rasters to train on without writing tiles.

    Those that validate are the tiles that `data tile --size` would write. Those that train reach half a tile further,
    where their neighbours train, too: so that crops of that size lie anywhere.

    Raises:
        UserError: as `plan_tiles`.
    """
    tiling, fills, starts = plan_tiles(pairs, TileOptions(size=size)), [], []
    for files, how in zip(pairs, tiling.resampling, strict=True):
        with opened(files, how) as rasters:
            fills.append([fill_of(raster) for raster in rasters])
            starts.append([_starts(side, size, size) for side in rasters[0].shape])
    train = set(tiling.splits["train"])
    return {
        split: RasterRows(
            pairs,
            [
                (tile.pair, _window(tile, size, starts[tile.pair], train if split == "train" else set()))
                for tile in tiles
            ],
            tiling.resampling,
            fills,
            columns,
        )
        for split, tiles in tiling.splits.items()
    }


def _window(tile: Tile, size: int, starts: Sequence[Sequence[int]], neighbours: AbstractSet[Tile]) -> Window:
    """A tile, up to half a tile larger to each side on which all that it then touches are among `neighbours`.

    Args:
        starts: of rows and of columns, as `_starts` has them.
    """
    places = [(-1, *side, -1) for side in starts]  # beyond the borders there is none
    row, column = places[0].index(tile.row), places[1].index(tile.column)
    rows, columns = places[0][row : row + 1], places[1][column : column + 1]  # of the tiles it touches
    reach = [0, 0, 0, 0]
    for side in range(len(reach)):
        up, down, left, right = tried = [*reach[:side], 1, *reach[side + 1 :]]
        wider = places[0][row - up : row + down + 1], places[1][column - left : column + right + 1]
        if {Tile(tile.pair, *place) for place in itertools.product(*wider)} <= neighbours:
            reach, (rows, columns) = tried, wider
    half = size // 2
    return (
        (max(rows[0], tile.row - half), min(rows[-1], tile.row + half) + size),
        (max(columns[0], tile.column - half), min(columns[-1], tile.column + half) + size),
    )
