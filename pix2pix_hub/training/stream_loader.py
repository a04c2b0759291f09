"""A process's batches of a streamed set: on its device, in step with the other processes, with their position kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderStateMixin
from accelerate.state import GradientState
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from pix2pix_hub.data.streaming import PairStream, Position
from pix2pix_hub.errors import UserError

logger = logging.getLogger(__name__)


def refuse_bad_pair(fault: str) -> None:
    """What happens with a bad pair by default.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"{fault} Replace or remove that pair and start again, or leave such pairs out with --on-bad-pair skip."
    )


def log_bad_pair(fault: str) -> None:
    """What happens with `--on-bad-pair skip`."""
    logger.warning("Left out: %s", fault)


class StreamLoader(DataLoaderStateMixin):
    """Iterates over a `PairStream`, once for each epoch; `state_dict` says where it stands.

    Accelerate 1.15 would save the state of a torchdata loader in one file of one name for all processes, and
    `datasets` does not save the content of its shuffle buffer. Here every batch brings the position after it along,
    and each process keeps its own.

    Args:
        accelerator: of the run.
        stream: this process's share.
        num_workers: processes that read and augment; 0: none.
        on_bad_pair: called with what is wrong, in this process, when a bad pair was left out.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        stream: PairStream,
        num_workers: int,
        on_bad_pair: Callable[[str], None] = refuse_bad_pair,
    ) -> None:
        self.accelerator, self.dataset, self.num_workers = accelerator, stream, num_workers
        self.on_bad_pair = on_bad_pair
        self.gradient_state = GradientState()
        self._positions: dict[int, Position] = {}
        self._next_worker = 0
        self._epoch = 0

    def __len__(self) -> int:
        """Batches in an epoch.

        Raises:
            TypeError: not known.
        """
        if self.dataset.plan.deal is None:
            raise TypeError("the length of this stream is not known")
        return len(self.dataset.plan.deal)

    def set_epoch(self, epoch: int) -> None:
        """Call before iterating: another epoch than the one under way starts at its beginning."""
        if epoch != self._epoch:
            self._epoch, self._positions, self._next_worker = epoch, {}, 0

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch that was taken."""
        positions = {worker: list(position) for worker, position in self._positions.items()}
        return {
            "epoch": self._epoch,
            "workers": max(1, self.num_workers),
            "next_worker": self._next_worker,
            "positions": positions,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch that `state` was taken at.

        Raises:
            UserError: another number of workers, which would have read other rows.
        """
        if state["workers"] != max(1, self.num_workers):
            raise UserError(
                f"--num-workers {self.num_workers}: the streamed run was stopped with {state['workers']} worker(s) "
                f"to a process. Go on with --num-workers {state['workers']}."
            )
        self._epoch, self._next_worker = state["epoch"], state["next_worker"]
        self._positions = {worker: Position(*position) for worker, position in state["positions"].items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches without their `"position"` and `"bad_pairs"`, one read ahead, as accelerate's own loaders do."""
        self.begin()
        try:
            batches = self._in_step(self._read())
            batch = next(batches, None)
            while batch is not None:
                following = next(batches, None)
                self.end_of_dataloader = following is None
                self._note(*batch.pop("position"))
                for fault in batch.pop("bad_pairs"):
                    self.on_bad_pair(fault)
                yield batch
                batch = following
        finally:
            self.end()

    def _read(self) -> Iterator[dict[str, Any]]:
        stream = self.dataset
        stream.epoch, stream.positions, stream.next_worker = self._epoch, dict(self._positions), self._next_worker
        loader = DataLoader(
            stream,
            batch_size=None,  # the stream makes the batches
            num_workers=self.num_workers,
            pin_memory=self.accelerator.device.type == "cuda",
            generator=torch.Generator(),  # its own: starting workers must not advance the one that dropout uses
        )
        for batch in loader:
            yield send_to_device(batch, self.accelerator.device, non_blocking=True)

    def _in_step(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Where lengths are not known the epoch ends, for all, when the first process has nothing left."""
        if self.dataset.plan.deal is not None or self.accelerator.num_processes == 1:
            yield from batches
            return
        while True:
            batch = next(batches, None)
            at_end = torch.tensor(float(batch is None), device=self.accelerator.device)
            if self.accelerator.reduce(at_end) > 0:
                return
            assert batch is not None
            yield batch

    def _note(self, worker: int, *position: int) -> None:
        self._positions[worker] = Position(*position)
        self._next_worker = (worker + 1) % max(1, self.num_workers)
