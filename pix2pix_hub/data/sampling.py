"""Which process takes which pairs: every pair once an epoch over all processes, in the same number of steps.

Accelerate's own sharding fills the last batches up with pairs from the start of the epoch; here the incomplete end is
dealt out instead. All processes must take the same number of steps, each with at least one pair, or the gradient
exchange between them would wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch.utils.data import Sampler

from pix2pix_hub.data.transforms import EpochSampler
from pix2pix_hub.util import UserError


def even_share(count: int, parts: int, part: int) -> range:
    """Which of `count` things the `part`-th of `parts` gets: neighbours, and nobody more than one above another.

    >>> [list(even_share(5, 3, part)) for part in range(3)]
    [[0, 1], [2, 3], [4]]
    """
    each, left_over = divmod(count, parts)
    start = part * each + min(part, left_over)
    return range(start, start + each + (part < left_over))


@dataclass(frozen=True)
class Deal:
    """How an epoch's pairs are dealt to the processes, step by step.

    Each step takes `batch_size` pairs for each process. What is left at the end is dealt out evenly in one more step.
    Where that is too little for one pair each, the last two steps share their pairs evenly; with `batch_size` 1, where
    there is nothing to share, some processes take two pairs in the last step. So no pair is left out and none repeated.

    Raises:
        UserError: fewer pairs than processes.
    """

    pairs: int
    processes: int
    batch_size: int  # pairs per step and process

    def __post_init__(self) -> None:
        if self.pairs < self.processes:
            raise UserError(
                f"{self.pairs} training pairs are too few for {self.processes} processes: each needs one at every "
                f"step. Launch with --num_processes {max(1, self.pairs)} or fewer."
            )

    def __len__(self) -> int:
        """Steps, the same for every process."""
        return self._full_steps + len(self._tail)

    def share(self, step: int, process: int) -> range:
        """Places in the epoch's order of the pairs that `process` takes at `step`; never empty."""
        whole = self.processes * self.batch_size
        start = min(step, self._full_steps) * whole + sum(self._tail[: max(0, step - self._full_steps)])
        count = whole if step < self._full_steps else self._tail[step - self._full_steps]
        share = even_share(count, self.processes, process)
        return range(start + share.start, start + share.stop)

    def count(self, process: int, first: int = 0, every: int = 1) -> int:
        """Pairs of steps `first`, `first + every`, … that `process` takes."""
        full = len(range(first, self._full_steps, every))
        tail = (step for step in range(self._full_steps, len(self)) if step >= first and (step - first) % every == 0)
        return full * self.batch_size + sum(len(self.share(step, process)) for step in tail)

    @property
    def _too_few_left(self) -> bool:
        return 0 < self.pairs % (self.processes * self.batch_size) < self.processes

    @property
    def _full_steps(self) -> int:
        return self.pairs // (self.processes * self.batch_size) - self._too_few_left

    @property
    def _tail(self) -> tuple[int, ...]:
        """Pairs, of all processes, in each step that is not full."""
        left = self.pairs - self._full_steps * self.processes * self.batch_size
        if self._too_few_left and self.batch_size > 1:
            return (left - left // 2, left // 2)
        return (left,) if left else ()


class ProcessBatches(Sampler[list[tuple[int, int]]]):
    """Batches of one process: the `Deal` of what `sampler` yields.

    Raises:
        UserError: fewer pairs than processes.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, processes: int = 1, process: int = 0) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.deal = Deal(len(sampler), processes, batch_size)
        self.process = process

    def __len__(self) -> int:
        return len(self.deal)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        keys = list(self.sampler)
        for step in range(len(self.deal)):
            places = self.deal.share(step, self.process)
            yield keys[places.start : places.stop]
