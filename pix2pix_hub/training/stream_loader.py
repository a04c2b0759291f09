"""A process's batches of a streamed set: on its device, in step with the other processes, with their position kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderStateMixin
from accelerate.state import GradientState
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from pix2pix_hub.data.bad_pairs import Fault, Place
from pix2pix_hub.data.streaming import PairStream, Position
from pix2pix_hub.util import UserError, counted


class StreamLoader(DataLoaderStateMixin):
    """Iterates over a `PairStream`, once for each epoch; `state_dict` says where it stands.

    Accelerate 1.15 would save the state of a torchdata loader in one file of one name for all processes, and
    `datasets` does not save the content of its shuffle buffer. Here every batch brings the position after it along,
    and each process keeps its own, with the bad pairs it has left out so far.

    Args:
        accelerator: of the run.
        stream: this process's share.
        num_workers: processes that read and augment; 0: none.
        skip_bad_pairs: leave them out, where else training stops before the batch that they are in.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        stream: PairStream,
        num_workers: int,
        skip_bad_pairs: bool = False,
    ) -> None:
        self.accelerator, self.dataset, self.num_workers = accelerator, stream, num_workers
        self.skip_bad_pairs = skip_bad_pairs
        self.faults: dict[Place, Fault] = {}  # pairs left out, in all epochs
        self.reason_ahead: str | None = None  # why training cannot go on with the next batch
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
            "faults": [dataclasses.asdict(fault) for fault in self.faults.values()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch that `state` was taken at.

        Raises:
            UserError: another number of workers, which would have read other rows.
        """
        if state["workers"] != max(1, self.num_workers):
            raise UserError(
                f"--num-workers {self.num_workers}: the streamed run was stopped with "
                f"{counted(state['workers'], 'worker')} to a process. Go on with --num-workers {state['workers']}."
            )
        self._epoch, self._next_worker = state["epoch"], state["next_worker"]
        self._positions = {worker: Position(*position) for worker, position in state["positions"].items()}
        self.faults = {(fault := Fault(**fields)).place: fault for fields in state["faults"]}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches without their `"position"` and `"bad_pairs"`, one read ahead, as accelerate's own loaders do.

        Raises:
            UserError: training cannot go on with this batch, see `reason_ahead`, and has not stopped before.
        """
        self.begin()
        try:
            batches = self._in_step(self._read())
            batch = next(batches, None)
            self.reason_ahead = self._reason_to_stop(batch)
            while batch is not None:
                if self.reason_ahead is not None:
                    raise UserError(self.reason_ahead)
                following = next(batches, None)
                self.end_of_dataloader = following is None
                self.reason_ahead = self._reason_to_stop(following)
                self._note(*batch.pop("position"))
                self.faults = {fault.place: fault for fault in batch.pop("bad_pairs")} | self.faults
                yield batch
                batch = following
        finally:
            self.end()

    def _reason_to_stop(self, batch: Mapping[str, Any] | None) -> str | None:
        """Why nobody should train on a batch."""
        if batch is None or not batch["bad_pairs"]:
            return None
        reason = batch["bad_pairs"][0].reason
        if not self.skip_bad_pairs:
            return (
                f"{reason} To go on from the last checkpoint without such pairs, add --resume --on-bad-pair skip to "
                "the command; or mend it and start a new run."
            )
        if "source" not in batch:
            return f"{reason} Nor is any pair near it good, or at the start of other shards: look at that one."
        return None

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
