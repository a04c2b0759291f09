"""`data make`: photos → pairs whose target is the photo, and whose source is made from it.

pix2pix-hub data make edges path/to/photos --output path/to/pairs

What is done is kept beside the output, in `pairs.partial/`, until all is; see `shards.py`.
"""

from __future__ import annotations

import glob
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from datasets import disable_progress_bars

from pix2pix_hub.config import DatasetOptions, MakerOptions, PairOptions
from pix2pix_hub.data.pairs import (
    IMAGE_SUFFIXES,
    MADE_COLUMNS,
    MAKER_NAME,
    SYNTHETIC,
    FoundPairs,
    find_images,
    find_inputs,
    find_pairs,
    found_files,
    image_column,
    undecoded,
)
from pix2pix_hub.data.shards import Shard, ShardPlan, image_cells, write_shard
from pix2pix_hub.data.stream import ShardPlaces, ShardRows, open_shards, shard_lengths
from pix2pix_hub.data.tools import CARD_HEAD, train_command
from pix2pix_hub.image.maker import make_pair
from pix2pix_hub.util import PARTIAL_SUFFIX, UserError, public_name, publish_folder

ROWS_PER_FILE = 64
CARD = (
    CARD_HEAD
    + """Pairs of images for paired image-to-image translation, lossless: `target` is a photo, `source` was made from it
({maker}).

{counts}

Photos: `{dataset}` ({fingerprint}).

    {command}

Say here where the photos come from and under which licence they may be used.
"""
)


# --- photos


class StreamedRows(Sequence[dict[str, Any]]):
    """A split that is read from its shards as it comes, by row number: rows in order cost nothing extra."""

    def __init__(self, stream: Any, lengths: Sequence[int]) -> None:
        self._places = ShardPlaces([(0, length) for length in lengths])
        self._rows = ShardRows(stream, ROWS_PER_FILE)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: Any) -> Any:
        return self._rows[self._places[number]]


def find_photos(
    photos: Sequence[str],
    *,
    source_column: str | None = None,
    dataset_revision: str | None = None,
    streaming: bool = False,
) -> FoundPairs:
    """Find photos, in one column.

    Args:
        photos: one folder, table file or Hub id, or `synthetic`; else files, folders and patterns.
        source_column: the column they are in, where there are several.
        dataset_revision: of a Hub data set.
        streaming: read them as they come.

    Raises:
        UserError: nothing there, or no such column.
    """
    place = photos[0] if len(photos) == 1 else ""
    path = Path(place).expanduser()
    as_files = not place or path.suffix.lower() in IMAGE_SUFFIXES or (glob.has_magic(place) and not path.exists())
    if (as_files or place == SYNTHETIC) and (source_column or dataset_revision or streaming):
        raise UserError("--source-column, --dataset-revision and --streaming are for data sets: leave them out.")
    if place == SYNTHETIC:
        pairs = find_pairs(PairOptions())
        splits = {name: rows.select_columns(["photo"]) for name, rows in pairs.splits.items()}
        return replace(pairs, splits=splits, columns=("photo",))
    if as_files:
        files = [file.absolute() for file in find_inputs(photos)]
        return found_files("one column", Path(os.path.commonpath([file.parent for file in files])), {"train": files})
    if dataset_revision and path.exists():
        raise UserError(f"--dataset-revision is for Hub data sets; {place} is on this machine. Leave it out.")
    request = DatasetOptions(place, dataset_revision, source_column)
    if not streaming:
        return find_images(request)
    builder, streams, mark = open_shards(request)
    columns = image_column(next(iter(streams.values())).features, request)
    rows = undecoded(streams, columns, request)
    splits = {name: StreamedRows(part, shard_lengths(builder, name, part)) for name, part in rows.items()}
    return FoundPairs("stream", splits, columns, mark)


# --- pairs


def make_pairs(
    found: FoundPairs,
    maker: MakerOptions,
    output: Path,
    *,
    dataset: str,
    num_workers: int = 0,
    report: Callable[[int], object] = lambda rows: None,
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Write `output`, with columns `source` and `target`, whole or not at all; stopped, the same call goes on.

    The same bytes on any number of processes.

    Args:
        found: the photos.
        maker: how sources are made.
        output: folder to write Parquet files, a card and `source_maker.json` to.
        dataset: what the card calls the photos.
        num_workers: processes; 0: this one.
        report: called with a number of photos that are done.

    Returns:
        Photos in each split, and those left out, each with `split`, `row` and `reason`.

    Raises:
        UserError: the folder exists and holds something else, somebody is working on it, or the disk is full.
    """
    settings: dict[str, Any] = {
        "maker": maker.to_dict(),
        "photos": public_name(dataset),
        "fingerprint": found.fingerprint,
    }
    plan = ShardPlan(MAKER_NAME, settings, {name: len(rows) for name, rows in found.splits.items()}, ROWS_PER_FILE)
    partial = output.with_name(output.name + PARTIAL_SUFFIX)
    if output.exists():
        plan.check_same(output)
        return plan.splits, plan.left_out(output)
    try:
        with plan.begin(partial):
            _make_shards(found, maker, partial, plan.shards(), num_workers, report)
            kind = ", ".join(f"{name} {value}" for name, value in settings["maker"].items())
            words = {"name": output.name, "maker": kind, "dataset": settings["photos"]}
            words["command"] = train_command(output.name)
            left_out = plan.finish(
                partial, lambda counts: CARD.format(**words, fingerprint=found.fingerprint, counts=counts)
            )
            publish_folder(partial, output)
    except OSError as error:
        raise UserError(f"--output {output} could not be written ({error}): the same command goes on.") from error
    return plan.splits, left_out


def _make_shards(
    found: FoundPairs,
    maker: MakerOptions,
    folder: Path,
    shards: Sequence[Shard],
    num_workers: int,
    report: Callable[[int], object],
) -> None:
    """Write those shards that are not there yet."""
    missing = [shard for shard in shards if not (folder / "data" / shard[0]).exists()]
    report(sum(len(numbers) for _, (_, numbers) in shards) - sum(len(numbers) for _, (_, numbers) in missing))
    if not num_workers:
        for shard in missing:
            make_shard(found, maker, folder, shard)
            report(len(shard[1][1]))
        return
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "skimage.feature"])  # what takes its time is imported once for all
    pool = ProcessPoolExecutor(num_workers, context, initializer=_start_worker, initargs=(found, maker, folder))
    try:
        jobs = {pool.submit(_make_own, shard): shard for shard in missing}
        for job in as_completed(jobs):
            job.result()
            report(len(jobs[job][1][1]))
    finally:
        pool.shutdown(cancel_futures=True)


def make_shard(found: FoundPairs, maker: MakerOptions, folder: Path, shard: Shard) -> None:
    """Write the pairs of one Parquet file."""
    split, numbers = shard[1]

    def rows() -> Iterator[dict[str, Any] | Exception]:
        for number in numbers:
            try:
                name, stem, photo = found.image(split, number)
                yield image_cells(dict(zip(MADE_COLUMNS, make_pair(photo, maker, name), strict=True)), name, stem)
            except UserError as error:
                yield error

    write_shard(folder, shard, MADE_COLUMNS, rows())


_own: tuple[FoundPairs, MakerOptions, Path]  # of a worker


def _start_worker(*own: Any) -> None:
    """Remember what is common to all shards. Ctrl-C is for the main process, and with that this one ends, too."""
    global _own
    _own = own
    disable_progress_bars()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make_own(shard: Shard) -> None:
    make_shard(*_own, shard)
