"""`pix2pix-hub data inspect`, `build`, `make` and `tile`, and how commands name a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from pix2pix_hub.config import (
    DatasetOptions,
    ImageOptions,
    MakerKind,
    MakerOptions,
    OnBadPair,
    PairOptions,
    TileOptions,
)
from pix2pix_hub.util import UserError, counted, say


@dataclass(frozen=True)
class NamedDataset(DatasetOptions):
    """Which images, and which side of pairs is the source."""

    dataset: Annotated[str, Positional, arg(metavar="DATASET")] = field()
    """Folder, file, Hub id, or `synthetic`."""


@dataclass(frozen=True)
class RevisedDataset(NamedDataset):
    """Which pairs, and which side is the source."""

    dataset_revision: Annotated[str | None, arg(aliases=["--revision"])] = None
    """Branch, tag or commit of a Hub dataset."""


@dataclass(frozen=True)
class InspectedDataset(RevisedDataset, ImageOptions):
    """Which pairs, and how they are drawn: as training would see them."""


def data_inspect(data: InspectedDataset, grid: Path = Path("pairs.png"), rows: int = 6) -> int:
    """Say what a set of pairs is and what in it would spoil training, and draw some of it, before anything is trained.

    The exit status is 1 where it has bad pairs.

    Args:
        grid: Picture to write: source | target | both laid over each other.
        rows: Pairs in the picture (pairs).
    """
    if rows < 1:
        raise UserError(f"--rows {rows} draws nothing: give 1 or more.")
    pairs = PairOptions(**vars(data))
    from pix2pix_hub.data.tools import inspect_pairs

    found = inspect_pairs(pairs, grid, rows)
    say(found.describe())
    say(f"picture    {grid}: source | target | both laid over each other")
    return 1 if found.findings.faults else 0


def data_build(
    data: RevisedDataset,
    output: Path | None = None,
    push: str | None = None,
    private: bool = False,
    on_bad_pair: OnBadPair = "stop",
) -> None:
    """Turn any local form of pairs into a Hugging Face data set with columns `source` and `target`.

    Args:
        output: Folder to write Parquet shards and a card to.
        push: Data set on the Hub to push to, user/name.
        private: Make the data set on the Hub private.
        on_bad_pair: What to do about pairs that cannot be used.
    """
    if (output is None) == (push is None):
        raise UserError("name where the data set goes: either --output FOLDER or --push user/name.")
    if output is not None and output.exists():
        raise UserError(f"--output {output} exists and is never overwritten: name another folder.")
    pairs = PairOptions(**vars(data), on_bad_pair=on_bad_pair)
    from pix2pix_hub.data.tools import build_pairs, push_dataset, train_command, write_dataset
    from pix2pix_hub.hub.push import check_account

    if push is not None:
        push = check_account(push)
    built = build_pairs(pairs, push or str(output))
    counts = ", ".join(f"{len(rows)} {split}" for split, rows in built.splits.items())
    findings = built.seen.findings
    skipped = f"; {counted(len(findings.faults), 'bad pair')} left out" if findings.faults else ""
    if built.seen.found.ignored:
        say(f"Ignored: {built.seen.found.ignored}.")
    if output is not None:
        files = write_dataset(built, output)
        say(f"{counts} pairs{skipped} in {counted(len(files), 'file')} under {output}.")
        say(f"Train on it: {train_command(str(output))}")
    elif push is not None:
        say(f"{counts} pairs{skipped} pushed to {push_dataset(built, push, private=private)}")


@dataclass(frozen=True)
class NamedMaker(MakerOptions):
    """How sources are made. An option of another kind is refused."""

    kind: Positional[MakerKind] = field()
    """edges: a line drawing; lowres: made small, then enlarged; mask: magenta holes to fill; palette: few colours."""


@dataclass(frozen=True)
class NamedPhotos:
    """Which photos."""

    photos: Annotated[tuple[str, ...], Positional, arg(metavar="PHOTOS ...", help_behavior_hint="(one or more)")]
    """Folder (its folders train and val are splits), files, patterns, table file, Hub id, or `synthetic`."""
    source_column: str | None = None
    """Image column of a data set, where it has several."""
    dataset_revision: Annotated[str | None, arg(aliases=["--revision"])] = None
    """Branch, tag or commit of a Hub dataset."""
    streaming: bool = False
    """Read a data set as it comes: nothing downloaded ahead."""


def data_make(
    maker: NamedMaker,
    data: NamedPhotos,
    output: Path,
    grid: Path | None = None,
    rows: int = 6,
    num_workers: int = 0,
) -> int:
    """Make pairs of photos: the target is the photo, the source is made from it.

    Stopped, the same command goes on where it was. The exit status is 1 where photos could not be used.

    Args:
        output: Folder to write Parquet files and a card to.
        grid: Picture of some of the pairs to write: source | target | both laid over each other.
        rows: Pairs in the picture (pairs).
        num_workers: Processes that make pairs; 0: this one alone.
    """
    if rows < 1 or num_workers < 0:
        raise UserError(f"--rows {rows}, --num-workers {num_workers}: expected 1 or more rows and 0 or more processes.")
    from datasets import disable_progress_bars
    from tqdm import tqdm

    from pix2pix_hub.data.make import find_photos, make_pairs
    from pix2pix_hub.data.tools import inspect_pairs, train_command

    disable_progress_bars()  # one for each file
    found = find_photos(**vars(data))
    with tqdm(total=sum(map(len, found.splits.values())), unit="photo", disable=None) as bar:
        splits, left_out = make_pairs(
            found, maker, output, dataset=data.photos[0], num_workers=num_workers, report=bar.update
        )
    say(f"{counted(sum(splits.values()) - len(left_out), 'pair')} in {output}.")
    for line in left_out[:20]:
        say(f"  left out: {line['reason']}")
    if len(left_out) > 20:
        say(f"  … and {len(left_out) - 20} more, listed in {output / 'left_out.jsonl'}.")
    if grid is not None:
        inspect_pairs(PairOptions(str(output)), grid, rows)
        say(f"picture    {grid}: source | target | both laid over each other")
    say(f"Train on it: {train_command(str(output))}")
    return 1 if left_out else 0


def data_tile(
    rasters: Annotated[
        tuple[Path, ...], Positional, arg(metavar="SOURCE.tif TARGET.tif ...", help_behavior_hint="(one or more)")
    ],
    options: Annotated[TileOptions, arg(name="")],
    output: Path,
) -> None:
    """Cut rasters of the same ground into pairs of tiles; training and validation share no pixel.

    Stopped, the same command goes on where it was.

    Args:
        rasters: GeoTIFFs, two by two: of the source, then of the target, which is brought onto the first one's grid.
        output: Folder to write Parquet files and a card to.
    """
    if not rasters or len(rasters) % 2:
        raise UserError(f"{counted(len(rasters), 'raster')} came: name them two by two, source and target of each.")
    from datasets import disable_progress_bars
    from tqdm import tqdm

    from pix2pix_hub.data.tile import dropped, tile_rasters
    from pix2pix_hub.data.tools import train_command

    disable_progress_bars()  # one for each file
    pairs = list(zip(rasters[::2], rasters[1::2], strict=True))
    with tqdm(unit="tile", disable=None) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        tiling = tile_rasters(pairs, options, output, report)
    for (_, second), how in zip(pairs, tiling.resampling, strict=True):
        if how is not None:
            say(f"{second} was brought onto the grid of its partner ({how} resampling).")
    say(dropped(tiling))
    counts = ", ".join(f"{len(tiles)} {name}" for name, tiles in tiling.splits.items())
    say(f"{counts} pairs in {output}.")
    say(f"Train on it: {train_command(str(output))}")
