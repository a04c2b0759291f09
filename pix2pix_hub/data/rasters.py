"""`data tile`: rasters of the same ground, two by two → pairs of tiles, no pixel of which trains and validates.

pix2pix-hub data tile aerial.tif map.tif --size 256 --output path/to/pairs

The second raster of each two is brought onto the grid of the first. All is read through windows: memory follows from
the width of a raster, not from its area. What is done is kept beside the output until all is; see `shards.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pix2pix_hub.config import TileOptions
from pix2pix_hub.data.pairs import MADE_COLUMNS
from pix2pix_hub.data.shards import ShardPlan, image_cells, write_shard
from pix2pix_hub.data.tools import CARD_HEAD, train_command
from pix2pix_hub.image.raster import bands_of, fill_of, looked_at, open_raster, rasterio_of, read_window
from pix2pix_hub.util import PARTIAL_SUFFIX, UserError, counted, publish_folder

PLAN_NAME = "tiles.json"
ROWS_PER_FILE = 64
BLOCKS = 40  # about so many that the ground is dealt out in, so that a tenth of it is several places
MOST_CLASSES = 64
CARD = (
    CARD_HEAD
    + """Tiles of {size}x{size} pixels for paired image-to-image translation, lossless: `source` of {sources},
`target` of {targets}.

{counts} {dropped} Training and validation lie in different places: no pixel is in both.

    {command}

Say here where the rasters come from and under which licence they may be used.
"""
)


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
    size, stride = options.size, options.stride or options.size
    resampling = [resampling_of(files, options.resampling) for files in pairs]
    tiles: list[Tile] = []
    empty, area = 0, 0
    for number, files in enumerate(pairs):
        with opened(files, resampling[number]) as (first, second):
            if min(first.shape) < size:
                raise UserError(
                    f"{files[0]} has {first.height}x{first.width} pixels: --size {size} needs as many on each side."
                )
            area += first.height * first.width
            for row in range(0, first.height - size + 1, stride):
                window = ((row, row + size), (0, first.width))
                valid = (first.dataset_mask(window=window) > 0) & (second.dataset_mask(window=window) > 0)
                for column in range(0, first.width - size + 1, stride):
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
            f"whole, leave none for {lacking[0]}: lower --size or --validation, or give more rasters (--validation 0: "
            "all train)."
        )
    return splits, straddling


# --- pairs


def tile_rasters(
    pairs: Sequence[tuple[Path, Path]],
    options: TileOptions,
    output: Path,
    report: Callable[[int, int], object] = lambda done, total: None,
) -> Tiling:
    """Write `output`, with columns `source` and `target`, whole or not at all; stopped, the same call goes on.

    Args:
        pairs: rasters, two by two: of the source and of the target.
        options: size, stride, split.
        output: folder to write Parquet files and a card to.
        report: called with numbers of tiles, those done and all.

    Raises:
        UserError: as `plan_tiles`; the folder exists and holds something else, or the disk is full.
    """
    _check_alike(pairs)
    tiling = plan_tiles(pairs, options)
    rasters = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for files in pairs for file in files]
    counts = {name: len(tiles) for name, tiles in tiling.splits.items()}
    plan = ShardPlan(PLAN_NAME, {"rasters": rasters, "options": asdict(options)}, counts, ROWS_PER_FILE)
    partial = output.with_name(output.name + PARTIAL_SUFFIX)
    if output.exists():
        plan.check_same(output)
        return tiling
    done, total, size = 0, sum(counts.values()), options.size

    def rows_of(tiles: Sequence[Tile]) -> Iterator[dict[str, Any]]:
        for number, row, column in tiles:
            window, files = ((row, row + size), (column, column + size)), pairs[number]
            images = {
                name: read_window(both[number][side], window, str(files[side]), fills[number][side])
                for side, name in enumerate(MADE_COLUMNS)
            }
            yield image_cells(images, str(files[0]), f"{files[0].stem}_{row}_{column}")

    try:
        with plan.begin(partial), ExitStack() as stack:
            both = [
                stack.enter_context(opened(files, how)) for files, how in zip(pairs, tiling.resampling, strict=True)
            ]
            fills = [tuple(fill_of(raster) for raster in rasters) for rasters in both]
            for shard in plan.shards():
                name, (split, numbers) = shard
                if not (partial / "data" / name).exists():
                    tiles = [tiling.splits[split][number] for number in numbers]
                    write_shard(partial, shard, MADE_COLUMNS, rows_of(tiles))
                done += len(numbers)
                report(done, total)
            named = {name: ", ".join(files[side].name for files in pairs) for side, name in enumerate(MADE_COLUMNS)}
            words = {"name": output.name, "size": size, "command": train_command(output.name)}
            words |= {"sources": named[MADE_COLUMNS[0]], "targets": named[MADE_COLUMNS[1]], "dropped": dropped(tiling)}
            plan.finish(partial, lambda counts: CARD.format(**words, counts=counts))
            publish_folder(partial, output)
    except OSError as error:
        raise UserError(f"--output {output} could not be written ({error}): the same command goes on.") from error
    return tiling


def dropped(tiling: Tiling) -> str:
    """The tiles left out, in a sentence."""
    across = f" and {tiling.straddling} across the border of the two" if tiling.straddling else ""
    return f"Left out: {counted(tiling.empty, 'tile')} without data{across}."


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
