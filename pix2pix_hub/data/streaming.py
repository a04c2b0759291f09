"""Pairs read from shards as they come: bounded memory, and a position that can be taken up again exactly.

The buffer of `datasets`' own `shuffle` is refilled with other pairs on resuming. Here shuffling is arithmetic instead:
the order of the shards is drawn from (seed, epoch), and every `shuffle_buffer` consecutive rows of a shard form a block
whose order is drawn from (seed, epoch, shard, first row). Resuming reads the block again and draws the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol

import fsspec.asyn
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from pix2pix_hub.data.bad_pairs import Fault
from pix2pix_hub.data.shards import Span, StreamPlan, stable_index
from pix2pix_hub.data.transforms import PairTransform, mixed_seed
from pix2pix_hub.util import UserError

FIRST_ROWS = 8  # of a shard, that are tried as stand-ins for a batch without a good pair
STAND_INS = 64  # tried in all
Row = Mapping[str, Any]
Decode = Callable[[Row, str], tuple[Tensor, Tensor]]  # an undecoded row and its name → source and target as stored


class Shards(Protocol):
    """Rows of a split in shards. Picklable, for the workers of a `DataLoader`."""

    @property
    def split(self) -> str:
        """Name of the split."""

    def rows(self, shard: int, start: int, stop: int | None) -> Iterator[Row]:
        """Undecoded rows `start` to `stop` of a shard (None: to its end)."""

    def name(self, shard: int, row: int) -> str:
        """What a person finds the pair by."""


class Position(NamedTuple):
    """How far a worker has come in what the plan gives it."""

    span: int = 0
    taken: int = 0  # rows of that span
    batches: int = 0  # in all


class Record(NamedTuple):
    """A row on its way into a batch."""

    block: list[tuple[int, int, Row]]  # its block, permuted: shard, row number, row
    place: int  # in the block
    position: Position  # of the worker after this row, batches not counted


@dataclass
class PairStream(IterableDataset[dict[str, Any]]):
    """One process's share of a streamed set, as ready batches.

    A batch is `{"source", "target"}`, float32 `(N, C, H, W)` in [-1, 1]; `"index"`, `(N,)`, see `stable_index`;
    `"bad_pairs"`, a `Fault` for each left out; and `"position"`, the worker and its `Position` after the batch, so that
    the reading ahead of workers is not mistaken for training. A bad pair makes its batch smaller; where nothing would
    be left a good pair from nearby stands in, so that all processes keep step. Where there is none either there are no
    images in the batch.
    """

    shards: Shards
    plan: StreamPlan
    decode: Decode
    transform: PairTransform
    shuffle_buffer: int  # rows
    epoch: int = 0
    positions: Mapping[int, Position] | None = None  # of each worker, to go on from
    next_worker: int = 0  # whose turn it is

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        if info is None:
            return self.batches(0, 1)
        fsspec.asyn.reset_lock()  # a lock held when this process was forked would never open
        return self.batches((info.id + self.next_worker) % info.num_workers, info.num_workers)

    def batches(self, worker: int, workers: int) -> Iterator[dict[str, Any]]:
        """The rest of the epoch of one worker."""
        position = (self.positions or {}).get(worker, Position())
        records = self._records(self.plan.work(self.epoch, worker, workers), position)
        sizes = self.plan.batch_sizes(worker, workers, position.batches)
        for number, size in enumerate(sizes, position.batches + 1):
            taken = list(islice(records, size))
            if not taken:
                return
            samples, faults = self._samples(taken)
            after = taken[-1].position._replace(batches=number)
            images = default_collate(samples) if samples else {}
            yield images | {"bad_pairs": faults, "position": (worker, *after)}

    def _records(self, spans: list[Span], position: Position) -> Iterator[Record]:
        for number, span in enumerate(spans[position.span :], position.span):
            taken = position.taken if number == position.span else 0
            in_block = taken % self.shuffle_buffer
            for block in self._blocks(span, taken - in_block):
                for place in range(in_block, len(block)):
                    taken += 1
                    yield Record(block, place, Position(number, taken))
                in_block = 0

    def _blocks(self, span: Span, skipped: int) -> Iterator[list[tuple[int, int, Row]]]:
        """The span from its row `skipped` on, in permuted blocks."""
        first = span.start + skipped
        if span.stop is not None and first >= span.stop:
            return
        rows = self.shards.rows(span.shard, first, span.stop)
        while held := list(islice(rows, self.shuffle_buffer)):
            generator = torch.Generator().manual_seed(mixed_seed(self.plan.seed, self.epoch, span.shard, first))
            order = torch.randperm(len(held), generator=generator).tolist()
            yield [(span.shard, first + place, held[place]) for place in order]
            first += len(held)
            del held  # before the next block is read

    def _samples(self, records: list[Record]) -> tuple[list[dict[str, Any]], list[Fault]]:
        """The good pairs, or one that stands in for them; and the bad ones."""
        results = [self._sample(*record.block[record.place]) for record in records]
        samples = [result for result in results if isinstance(result, dict)]
        faults = [result for result in results if isinstance(result, Fault)]
        return samples or self._stand_in(records[-1]), faults

    def _stand_in(self, record: Record) -> list[dict[str, Any]]:
        """The next good pair of the block, else the first one of its shard, or of another; the same on resuming."""
        in_block = record.block[record.place + 1 :] + record.block[: record.place]
        candidates = chain(in_block, islice(self._first_rows(record.block[0][0]), STAND_INS))
        samples = (self._sample(*candidate) for candidate in candidates)
        return list(islice((sample for sample in samples if isinstance(sample, dict)), 1))

    def _first_rows(self, shard: int) -> Iterator[tuple[int, int, Row]]:
        for span in sorted(self.plan.spans, key=lambda span: span.shard != shard):
            stop = span.start + FIRST_ROWS if span.stop is None else min(span.stop, span.start + FIRST_ROWS)
            for row, stored in enumerate(self.shards.rows(span.shard, span.start, stop), span.start):
                yield span.shard, row, stored

    def _sample(self, shard: int, row: int, stored: Row) -> dict[str, Any] | Fault:
        index = stable_index(shard, row)
        try:
            source, target = self.decode(stored, self.shards.name(shard, row))
            return {**self.transform(source, target, epoch=self.epoch, index=index), "index": index}
        except UserError as error:
            return Fault(self.shards.split, row, str(error), shard)
