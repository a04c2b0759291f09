"""Who sees which pairs when: every pair once an epoch over all processes, in the same number of steps.

Everything is drawn from (seed, epoch), whether pairs are at hand or streamed, so that the number of batches taken says
all about where an epoch stands. Accelerate's own sharding fills the last batches up with pairs from the start of the
epoch; here the incomplete end is dealt out instead. All processes must take the same number of steps, each with at
least one pair, or the gradient exchange between them would wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch.utils.data import Sampler

from pix2pix_hub.util import UserError

Key = tuple[int, int]  # epoch and index of a pair


def mixed_seed(*parts: int) -> int:
    """Non-negative integers → one 64-bit seed in which neighbours have nothing in common."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


class Deal:
    """Deals an epoch's pairs to the processes, step by step.

    Each step takes `batch_size` pairs for each process. What is left at the end is dealt out evenly in one more step.
    Where that is too little for one pair each, the last two steps share their pairs evenly; with `batch_size` 1, where
    there is nothing to share, some processes take two pairs in the last step. So no pair is left out and none repeated.

    Raises:
        UserError: fewer pairs than processes.
    """

    def __init__(self, pairs: int, processes: int, batch_size: int) -> None:
        if pairs < processes:
            raise UserError(
                f"{pairs} training pairs are too few for {processes} processes: each needs one at every step. Launch "
                f"with --num_processes {max(1, pairs)} or fewer."
            )
        self.processes, self.batch_size = processes, batch_size
        self._full_steps, left = divmod(pairs, processes * batch_size)
        self._tail = [left] if left else []  # pairs, of all processes, in each step that is not full
        if 0 < left < processes:
            self._full_steps -= 1
            left += processes * batch_size
            self._tail = [left - left // 2, left // 2] if batch_size > 1 else [left]

    def __len__(self) -> int:
        """Steps, the same for every process."""
        return self._full_steps + len(self._tail)

    def share(self, step: int, process: int) -> range:
        """Places in the epoch's order of the pairs that `process` takes at `step`: neighbours, and never none."""
        whole = self.processes * self.batch_size
        start = min(step, self._full_steps) * whole + sum(self._tail[: max(0, step - self._full_steps)])
        count = whole if step < self._full_steps else self._tail[step - self._full_steps]
        each, left_over = divmod(count, self.processes)  # the first processes take one pair more
        start += process * each + min(process, left_over)
        return range(start, start + each + (process < left_over))

    def count(self, process: int, first: int = 0, every: int = 1) -> int:
        """Pairs of steps `first`, `first + every`, … that `process` takes."""
        full = len(range(first, self._full_steps, every))
        tail = (step for step in range(self._full_steps, len(self)) if step >= first and (step - first) % every == 0)
        return full * self.batch_size + sum(len(self.share(step, process)) for step in tail)


def shuffled(count: int, *seed: int) -> list[int]:
    """0 … `count` - 1 in an order drawn from `seed`."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed_seed(*seed))).tolist()


class EpochSampler(Sampler[Key]):
    """Yields `(epoch, index)` for every pair once: in an order drawn from (seed, epoch), or as stored."""

    def __init__(self, length: int, *, seed: int = 0, shuffle: bool = True) -> None:
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Call before iterating; accelerate's loaders do so by this name."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        order = shuffled(self.length, self.seed, self.epoch) if self.shuffle else range(self.length)
        return iter([(self.epoch, index) for index in order])

    def batches(self, deal: Deal, process: int) -> Iterator[list[Key]]:
        """Yield the batches of one process, step by step."""
        keys = list(self)
        shares = (deal.share(step, process) for step in range(len(deal)))
        return (keys[share.start : share.stop] for share in shares)


class BlockSampler(EpochSampler):
    """The order of a stream: as random as reading on in each shard, a block at a time, allows.

    The order of the shards is drawn from (seed, epoch), that of the pairs in a block from (seed, epoch, first pair).
    The shards laid end to end are cut into one stretch for each process and, in that, for each of its workers. Batches
    come from the stretches in turn, as `DataLoader` hands them to its workers: a worker reads one stretch only, also
    where an epoch is taken up in its midst.

    Args:
        shards: the blocks of each, as ranges of pairs.
        workers: of each process, at least 1.
    """

    def __init__(self, shards: Sequence[Sequence[range]], workers: int, *, seed: int = 0) -> None:
        super().__init__(sum(len(block) for blocks in shards for block in blocks), seed=seed)
        self.shards, self.workers = shards, workers

    def __iter__(self) -> Iterator[Key]:
        return self._keys(self._blocks())

    def batches(self, deal: Deal, process: int) -> Iterator[list[Key]]:
        """Yield the batches of one process, step by step."""
        blocks = self._blocks()
        start = sum(deal.count(before) for before in range(process))
        stretches = []
        for worker in range(self.workers):
            stop = start + deal.count(process, worker, self.workers)
            stretches.append(self._keys(cut(blocks, start, stop)))
            start = stop
        for step in range(len(deal)):
            yield list(islice(stretches[step % self.workers], len(deal.share(step, process))))

    def _blocks(self) -> list[range]:
        return [block for shard in shuffled(len(self.shards), self.seed, self.epoch) for block in self.shards[shard]]

    def _keys(self, blocks: Sequence[range]) -> Iterator[Key]:
        for block in blocks:
            for place in shuffled(len(block), self.seed, self.epoch, block.start):
                yield self.epoch, block[place]


def cut(blocks: Sequence[range], start: int, stop: int) -> list[range]:
    """Pairs `start` to `stop` of the blocks laid end to end."""
    pieces, before = [], 0
    for block in blocks:
        piece = block[max(0, start - before) : max(0, stop - before)]
        pieces += [piece] if piece else []
        before += len(block)
    return pieces


class ProcessBatches(Sampler[list[Key]]):
    """Batches of one process: the `Deal` of what `sampler` yields, without the `taken` first ones.

    Raises:
        UserError: fewer pairs than processes.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, processes: int = 1, process: int = 0) -> None:
        self.sampler = sampler
        self.deal = Deal(len(sampler), processes, batch_size)
        self.process = process
        self.taken = 0

    def __len__(self) -> int:
        return len(self.deal)

    def __iter__(self) -> Iterator[list[Key]]:
        return islice(self.sampler.batches(self.deal, self.process), self.taken, None)
