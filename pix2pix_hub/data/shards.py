"""Which process and which of its workers reads which rows of which shards, epoch by epoch: arithmetic only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat

import torch

from pix2pix_hub.data.sampling import Deal
from pix2pix_hub.data.transforms import mixed_seed
from pix2pix_hub.util import UserError, counted

ROW_BITS = 32


def stable_index(shard: int, row: int) -> int:
    """One integer for a pair, whatever the number of processes and the size of other shards."""
    return shard << ROW_BITS | row


def shard_and_row(index: int) -> tuple[int, int]:
    """The inverse of `stable_index`."""
    return index >> ROW_BITS, index & (1 << ROW_BITS) - 1


@dataclass(frozen=True)
class Span:
    """Consecutive rows of one shard."""

    shard: int
    start: int
    stop: int | None  # None: to the end of the shard, wherever that is

    def __len__(self) -> int:
        assert self.stop is not None
        return self.stop - self.start


def cut(spans: Sequence[Span], start: int, stop: int) -> list[Span]:
    """Rows `start` to `stop` of the spans laid end to end (all of known length)."""
    pieces, before = [], 0
    for span in spans:
        first, last = max(start - before, 0), min(stop - before, len(span))
        if first < last:
            pieces.append(Span(span.shard, span.start + first, span.start + last))
        before += len(span)
    return pieces


@dataclass(frozen=True)
class StreamPlan:
    """Who reads what. The order of the shards is drawn from (seed, epoch).

    Where the lengths are known, the shards laid end to end are cut into one stretch of rows for each process and, in
    that, for each of its workers, of the lengths that the `Deal` gives them: each pair is read once an epoch, and all
    processes take the same number of steps. Where they are not, whole shards go round, like cards.

    Raises:
        UserError: fewer pairs, or fewer shards of unknown length, than processes.
    """

    spans: tuple[Span, ...]
    seed: int
    batch_size: int
    processes: int = 1
    process: int = 0

    def __post_init__(self) -> None:
        if self.deal is None and len(self.spans) < self.processes:
            raise UserError(
                f"--streaming: {counted(len(self.spans), 'shard')} of unknown length cannot be shared out to "
                f"{self.processes} processes. Launch with --num_processes {len(self.spans)}, or write the set in more "
                "files."
            )

    @cached_property
    def deal(self) -> Deal | None:
        """How many pairs each process takes at each step, where the lengths are known."""
        if any(span.stop is None for span in self.spans):
            return None
        return Deal(sum(map(len, self.spans)), self.processes, self.batch_size)

    def work(self, epoch: int, worker: int = 0, workers: int = 1) -> list[Span]:
        """What one of this process's `workers` reads, in order."""
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        order = [self.spans[place] for place in torch.randperm(len(self.spans), generator=generator).tolist()]
        if self.deal is None:
            return order[self.process :: self.processes][worker::workers]
        counts = [self.deal.count(process) for process in range(self.process)]
        counts += [self.deal.count(self.process, before, workers) for before in range(worker)]
        start = sum(counts)
        return cut(order, start, start + self.deal.count(self.process, worker, workers))

    def batch_sizes(self, worker: int = 0, workers: int = 1, first: int = 0) -> Iterator[int]:
        """Pairs in each batch of a worker, from its batch number `first` on; without end where nothing is known."""
        if self.deal is None:
            return repeat(self.batch_size)
        steps = range(worker + first * workers, len(self.deal), workers)
        return (len(self.deal.share(step, self.process)) for step in steps)
