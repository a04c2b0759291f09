"""Sets read from their shards as they come: nothing downloaded ahead, one block of rows held at a time.

Parquet says in a few kB at the end of each file how many rows it has; other files are read through once to be counted.
With the lengths known a pair's index says where it is, so that a streamed set is ordered, dealt to processes and taken
up again like any other (see `order.py`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate, chain, islice, pairwise
from pathlib import Path
from typing import Any

import datasets
import fsspec.asyn
import pyarrow.parquet as pq
from datasets import IterableDataset
from datasets.utils.file_utils import xopen

from pix2pix_hub.config import DatasetOptions, PairOptions, parse_range
from pix2pix_hub.data.decode import FIRST_PAIRS, Fault, Findings, PairDataset, examine
from pix2pix_hub.data.pairs import (
    TABLES,
    VALIDATION_FRACTION,
    PairSplits,
    choose_columns,
    describe,
    fingerprint,
    in_one_line,
    is_loose,
    open_on_hub,
    recorded_maker,
    undecoded,
    validation_split_of,
)
from pix2pix_hub.data.transforms import PairTensors
from pix2pix_hub.util import UserError, counted

STREAMED_VALIDATION_PAIRS = 256  # at most, where --max-validation-pairs does not say: they are held in memory
READ_ROWS = 16  # taken from `datasets` at a time
COUNTING_THREADS = 16
FIRST_ROWS = 8  # of a shard, that are tried in place of a batch without a good pair
STAND_INS = 64  # tried in all
FORMS = (
    "--streaming reads Parquet, Arrow and WebDataset files, in a folder or on the Hub (user/name), with two image "
    "columns or one of side-by-side images. Folders of images and `save_to_disk` folders are read pair by pair "
    "anyway: leave --streaming out."
)
Place = tuple[int, int]  # shard and row


def open_stream(
    request: PairOptions, block: int = 1000, *, lengths: Sequence[int] | None = None, findings: Findings | None = None
) -> PairSplits:
    """Open a data set without reading more than its validation pairs and the lengths of its shards.

    Args:
        request: of a folder or a Hub data set; what is streamed and bad is left to the loader.
        block: rows that are read, and held, at a time.
        lengths: of the shards, where somebody has counted them.
        findings: of the first pairs, from a process that has looked at them.

    Raises:
        UserError: nothing there, a form that is not streamed, columns or splits unknown, bad pairs, too few pairs.
    """
    dataset, split = request.dataset, request.train_split
    if request.range is not None and parse_range(request.range)[2]:
        raise UserError(f"--range {request.range}: percentiles need all pairs, and --streaming reads few: give values.")
    builder, streams, mark = open_shards(request)
    held_split = validation_split_of(dict.fromkeys(streams), request)
    columns = choose_columns(streams[split].features, request)
    streams = undecoded(streams, columns, request)
    lengths = lengths or shard_lengths(builder, split, streams[split])

    def first_pairs(split: str, most: int) -> PairDataset:
        """In memory, undecoded."""
        rows: dict[Place, dict[str, Any]] = {}
        for shard in range(streams[split].num_shards):
            beginning = islice(rows_of(streams[split], shard), most - len(rows))
            rows |= {(shard, row): stored for row, stored in enumerate(beginning)}
        if not rows:
            raise UserError(f"split {split}: no pairs there. Name another with --train-split or --validation-split.")
        return PairDataset(rows, list(rows), split, columns, request.swap, least=request.least_size)

    count = request.max_validation_pairs or STREAMED_VALIDATION_PAIRS
    if held_split is None and request.max_validation_pairs is None:
        count = max(1, min(count, round(sum(lengths) * VALIDATION_FRACTION)))
    validation = first_pairs(held_split or split, count)
    taken = Counter(shard for shard, _ in validation.indices) if held_split is None else Counter()
    places = ShardPlaces([(taken[shard], length) for shard, length in enumerate(lengths)], request.max_train_pairs)
    if not len(places):
        raise UserError("--streaming: all pairs are set aside for validation. Give a smaller --max-validation-pairs.")
    if findings is None:
        further = [] if held_split is None else [first_pairs(split, min(FIRST_PAIRS, len(places)))]
        findings = examine([validation, *further], request)
    validation = findings.applied_to(validation)
    if not len(validation):
        raise UserError(f"--dataset {dataset}: no sound validation pair is left.")
    train = replace(validation, rows=ShardRows(streams[split], block), indices=places, split=split)
    note = "" if held_split else f" set aside from {split}"
    pairs = (
        f"{counted(len(train), 'pair')} in {counted(len(places.stretches), 'shard')}, streamed, and "
        f"{counted(len(validation), 'validation pair')}{note}"
    )
    description = describe(pairs, request, train, f"{findings.size_words} (of the first)")
    maker = None if request.swap else recorded_maker(request, columns, mark)
    return PairSplits(train, validation, description, "stream", mark, dataset, findings, lengths, maker=maker)


def open_shards(request: DatasetOptions) -> tuple[Any, Mapping[str, IterableDataset], str]:
    """The `datasets` builder, a stream for each split, and what identifies the data.

    Raises:
        UserError: nothing there, or a form that is not streamed.
    """
    path = Path(request.dataset).expanduser()
    if not path.exists():
        builder, mark = open_on_hub(request, datasets.load_dataset_builder, FORMS)
    elif not is_loose(path) or not any(any(path.rglob(f"*{suffix}")) for suffix in TABLES):
        raise UserError(f"--dataset {request.dataset} is not streamed. {FORMS}")
    else:
        builder, mark = None, fingerprint(path)
    try:
        builder = builder or datasets.load_dataset_builder(str(path))
        return builder, {str(name): stream for name, stream in builder.as_streaming_dataset().items()}, mark
    except Exception as error:
        raise UserError(f"--dataset {request.dataset} could not be streamed ({in_one_line(error)}). {FORMS}") from error


def shard_lengths(builder: Any, split: str, stream: IterableDataset) -> list[int]:
    """Rows of each shard."""
    files = [str(file) for file in (builder.config.data_files or {}).get(split, [])]

    def length(shard: int) -> int:
        if len(files) == stream.num_shards and files[shard].endswith(".parquet"):
            with xopen(files[shard], "rb", download_config=datasets.DownloadConfig(token=builder.token)) as content:
                return pq.ParquetFile(content).metadata.num_rows
        return sum(1 for _ in rows_of(stream, shard))

    with ThreadPoolExecutor(COUNTING_THREADS) as pool:
        return list(pool.map(length, range(stream.num_shards)))


def rows_of(stream: IterableDataset, shard: int, start: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of a shard from `start` on.

    Not by iterating over the set: in a worker of a `DataLoader` `datasets` would deal out the shards itself.
    """
    for batch in stream.shard(stream.num_shards, shard).skip(start).iter(READ_ROWS):
        for row in zip(*batch.values(), strict=True):
            yield dict(zip(batch, row, strict=True))


class ShardPlaces(Sequence[Place]):
    """Shard and row of each pair, from its index: the shards laid end to end.

    Args:
        bounds: of each shard, the first row that counts and the end.
        limit: pairs at most; None: all.
    """

    def __init__(self, bounds: Sequence[tuple[int, int]], limit: int | None = None) -> None:
        self.stretches: list[tuple[int, int, int]] = []  # shard, first row, end; none is empty
        left = sum(stop for _, stop in bounds) if limit is None else limit
        for shard, (start, stop) in enumerate(bounds):
            stop = min(stop, start + left)
            if start < stop:
                self.stretches.append((shard, start, stop))
                left -= stop - start
        self.starts = [0, *accumulate(stop - start for _, start, stop in self.stretches)]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: Any) -> Any:
        index = range(len(self))[index]
        number = bisect_right(self.starts, index) - 1  # of the stretch that holds it
        shard, start, _ = self.stretches[number]
        return shard, start + index - self.starts[number]

    def blocks(self, number: int, size: int) -> list[range]:
        """The pairs of one of `stretches` in the blocks of `size` rows that its shard is read in."""
        _, start, stop = self.stretches[number]
        cuts = [start, *range(start - start % size + size, stop, size), stop]
        offset = self.starts[number] - start
        return [range(offset + first, offset + last) for first, last in pairwise(cuts)]


class ShardRows:
    """Undecoded rows of a split by (shard, row). The block that was last read is held; going on from it is cheap."""

    def __init__(self, stream: IterableDataset, block: int) -> None:
        self.stream, self.block = stream, block
        self._held: list[dict[str, Any]] = []
        self._first: Place = (-1, 0)  # of the block that is held
        self._rows: Iterator[dict[str, Any]] = iter(())

    def __getitem__(self, place: Place) -> dict[str, Any]:
        """Raise a `UserError` where the shard has become shorter."""
        shard, row = place
        first = row - row % self.block
        if (shard, first) != self._first:
            if (shard, first) != (self._first[0], self._first[1] + self.block):
                self._rows = rows_of(self.stream, shard, first)
            self._held = []  # before the next block is read
            self._held, self._first = list(islice(self._rows, self.block)), (shard, first)
        if row - first >= len(self._held):
            raise UserError(f"row {row} of shard {shard} is not there any more: the set has changed.")
        return self._held[row - first]


class StreamTensors(PairTensors):
    """Pairs of a stream as batches, in which bad pairs are counted instead of raised.

    A bad pair makes its batch smaller; where nothing would be left a good pair from nearby stands in, so that all
    processes keep step. Where there is none either there are no images in the batch.
    """

    pairs: PairDataset

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[dict[str, Any] | Fault]:
        """The good pairs, or one that stands in for them; and the bad ones."""
        results = [self._sample(*key) for key in keys]
        if all(isinstance(result, Fault) for result in results):
            epoch, index = keys[-1]
            samples = (self._sample(epoch, other) for other in self._nearby(index))
            results += islice((sample for sample in samples if not isinstance(sample, Fault)), 1)
        return results

    def _sample(self, epoch: int, index: int) -> dict[str, Any] | Fault:
        try:
            return self[epoch, index]
        except UserError as error:
            return self.pairs.fault(index, str(error))

    def _nearby(self, index: int) -> Iterator[int]:
        """The other pairs of the block, and the first ones of the shards."""
        places = self.pairs.indices
        assert isinstance(places, ShardPlaces)
        size, stretches = self.pairs.rows.block, range(len(places.stretches))
        block = next(block for number in stretches for block in places.blocks(number, size) if index in block)
        yield from (*range(index + 1, block.stop), *range(block.start, index))
        starts = (range(*bounds)[:FIRST_ROWS] for bounds in pairwise(places.starts))
        yield from islice(chain.from_iterable(starts), STAND_INS)


def start_worker(worker: int) -> None:
    """Free `fsspec`'s lock, which would never open where it was held when this process was forked."""
    fsspec.asyn.reset_lock()
