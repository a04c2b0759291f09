"""`data tile`: rasters of the same ground, two by two → pairs of tiles in a folder; see `rasters.py`.

pix2pix-hub data tile aerial.tif map.tif --size 256 --output path/to/pairs

What is done is kept beside the output until all is; see `shards.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pix2pix_hub.config import TileOptions
from pix2pix_hub.data.pairs import MADE_COLUMNS
from pix2pix_hub.data.rasters import Tile, Tiling, opened, plan_tiles
from pix2pix_hub.data.shards import ShardPlan, image_cells, write_shard
from pix2pix_hub.data.tools import CARD_HEAD, train_command
from pix2pix_hub.image.raster import fill_of, read_window
from pix2pix_hub.util import PARTIAL_SUFFIX, UserError, counted, publish_folder

PLAN_NAME = "tiles.json"
ROWS_PER_FILE = 64
CARD = (
    CARD_HEAD
    + """Tiles of {size}x{size} pixels for paired image-to-image translation, lossless: `source` of {sources},
`target` of {targets}.

{counts} {dropped} Training and validation lie in different places: no pixel is in both.

    {command}

Say here where the rasters come from and under which licence they may be used.
"""
)


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
