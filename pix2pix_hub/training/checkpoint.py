"""Checkpoints: complete, written aside and then renamed, so that a run killed at any moment can go on bitwise.

checkpoints/checkpoint_<step>/
    model.safetensors model_1.safetensors optimizer.bin optimizer_1.bin    both networks and optimizers
    custom_checkpoint_<n>.pkl                                              schedules, moving average, progress
    random_states_<rank>.pkl image_buffer_<rank>.pt                        each process's own
    stream_<rank>.pt                                                       with --streaming: bad pairs it has met
    manifest.json                                                          what is in it, written last
"""

from __future__ import annotations

import dataclasses
import json
import logging
import platform
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError

from pix2pix_hub.devices import sharing_failures
from pix2pix_hub.util import PARTIAL_SUFFIX, UserError, publish_folder

logger = logging.getLogger(__name__)

CHECKPOINTS_NAME = "checkpoints"
MANIFEST_NAME = "manifest.json"


class Stateful(Protocol):
    """Something a process has of its own: the image buffer, the position in a stream."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@dataclass
class Progress:
    """Where a run stands; registered with Accelerate, so it travels with every checkpoint."""

    step: int = 0  # optimizer steps taken
    epoch: int = 0  # epochs completed
    batch: int = 0  # batches taken of the epoch under way, on each process
    elapsed_seconds: float = 0.0  # spent training, all sessions together
    waiting_seconds: float = 0.0  # those of them that the first process waited for pairs
    epoch_sums: dict[str, float] = field(default_factory=dict)  # of the epoch's losses so far, and "batches"
    best_value: float | None = None  # of the metric that picks the best export
    best_epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)  # of the last validation

    def end_epoch(self, metrics: dict[str, float]) -> dict[str, float]:
        """Count an epoch that was trained and validated; the mean of each loss over its batches."""
        count = self.epoch_sums.pop("batches", 0.0)
        means = {name: value / count for name, value in self.epoch_sums.items()}
        self.epoch += 1
        self.batch = 0
        self.epoch_sums = {}
        self.metrics = metrics
        return means

    def state_dict(self) -> dict[str, Any]:
        """All fields."""
        return dataclasses.asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over all fields of another `Progress`."""
        vars(self).update(state)


def list_checkpoints(run_folder: Path) -> list[Path]:
    """Finished checkpoints, newest first; ones still being written have another name."""
    found = [
        (int(match[1]), path)
        for path in (run_folder / CHECKPOINTS_NAME).glob("checkpoint_*")
        if (match := re.fullmatch(r"checkpoint_(\d+)", path.name))
    ]
    return [path for _, path in sorted(found, reverse=True)]


def newest_sound_checkpoint(run_folder: Path) -> Path | None:
    """The newest checkpoint with all its files as they were written, or None; damaged ones are warned about."""
    for path in list_checkpoints(run_folder):
        problem = _problem(path)
        if problem is None:
            return path
        logger.warning("%s is damaged (%s): going back to the one before.", path, problem)
    return None


def agreed_checkpoint(run_folder: Path) -> Path | None:
    """The first process's `newest_sound_checkpoint`, which every machine of a launch sees. All processes must ask.

    Raises:
        UserError: a machine does not see it, or sees another of that name.
    """
    state = PartialState()
    path = manifest = None
    with sharing_failures():
        if state.is_main_process and (path := newest_sound_checkpoint(run_folder)):
            manifest = (path / MANIFEST_NAME).read_text()
    path, manifest = broadcast_object_list([path, manifest])
    with sharing_failures():
        if path is not None and state.is_local_main_process and not state.is_main_process:
            seen = path / MANIFEST_NAME
            other = seen.read_text() != manifest if seen.is_file() else None
            problem = "it is another one" if other else "it is missing" if other is None else _problem(path)
            if problem is not None:
                raise UserError(
                    f"{path} is not on {platform.node()} as the first process has it ({problem}): let --output-dir lie "
                    "on storage that all machines see, or copy the run folder from the first machine to the others, "
                    "then try again."
                )
    return path


@contextmanager
def fail_together(run_folder: Path, what: str = "the run") -> Iterator[None]:
    """Make a block that every process of a run enters fail for all where it fails for one; all wait at its end.

    Args:
        run_folder: where the block writes to.
        what: what it writes there, as the subject of a sentence.

    Raises:
        UserError: the block's own; or that the disk is full or not writable, and what is saved nevertheless.
    """
    with sharing_failures():
        try:
            yield
        except (OSError, SafetensorError) as error:
            kept = newest_sound_checkpoint(run_folder)
            raise UserError(
                f"{what} could not be written to {run_folder} ({error}). "
                + (f"{kept.name} is untouched: " if kept else "There is no checkpoint yet: ")
                + "free some space, or make the folder writable, then run the same command again with --resume."
            ) from error


def save_checkpoint(
    accelerator: Accelerator, run_folder: Path, step: int, own: Mapping[str, Stateful], keep: int
) -> Path:
    """Save everything that was prepared by or registered with `accelerator`, and what each process has of its `own`.

    Called by all processes; those on other machines than the first process, which need not see `run_folder`, send it
    what is their own. Older checkpoints beyond the newest `keep` are deleted once the new one is in place.

    Raises:
        UserError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    path = run_folder / CHECKPOINTS_NAME / f"checkpoint_{step}"
    if broadcast_object_list([path.exists()])[0]:  # to the first process; a resumed run has removed damaged ones
        return path
    main, here = accelerator.is_main_process, accelerator.process_index == accelerator.local_process_index
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    what = f"the checkpoint of step {step}"
    try:
        with fail_together(run_folder, what):
            if main:
                for leftover in path.parent.glob(f"*{PARTIAL_SUFFIX}"):  # of a run that was killed
                    shutil.rmtree(leftover)
                partial.mkdir(parents=True)
        sent: dict[str, bytes] = {}
        with fail_together(run_folder, what), nullcontext(partial) if here else TemporaryDirectory() as folder:
            try:
                accelerator.save_state(str(folder))
                for name, part in own.items():
                    torch.save(part.state_dict(), Path(folder) / f"{name}_{accelerator.process_index}.pt")
            except RuntimeError as error:  # torch's writer, which says "unexpected pos 576" of a full disk
                raise OSError(f"the disk took a part only: {error}") from error
            if not here:
                sent = {file.name: file.read_bytes() for file in Path(folder).iterdir()}
        arrived = [sent] * accelerator.num_processes if main else None
        if accelerator.num_processes > 1:
            torch.distributed.gather_object(sent, arrived)  # to the first process
        with fail_together(run_folder, what):
            if arrived is not None:
                for name, content in (item for files in arrived for item in files.items()):
                    (partial / name).write_bytes(content)
                files = {file.name: _size_and_checksum(file) for file in sorted(partial.iterdir())}
                manifest = {"step": step, "num_processes": accelerator.num_processes, "files": files}
                (partial / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n")
                publish_folder(partial, path)
                for old in list_checkpoints(run_folder)[keep:]:
                    shutil.rmtree(old)
    except UserError:
        if main:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return path


def remove_after(run_folder: Path, sound: Path | None) -> None:
    """Delete the checkpoints newer than `sound` (all for None): damaged ones, which would pass for the newest."""
    for path in list_checkpoints(run_folder):
        if path == sound:
            break
        shutil.rmtree(path)


def load_checkpoint(accelerator: Accelerator, path: Path, own: Mapping[str, Stateful]) -> None:
    """Put everything registered, and what each process has of its `own`, back to where `save_checkpoint` saw them.

    Raises:
        UserError: written by another number of processes, or by networks of another shape.
    """
    processes = json.loads((path / MANIFEST_NAME).read_text())["num_processes"]
    if processes != accelerator.num_processes:
        raise UserError(
            f"{path} was written by another number of processes ({processes}) than now "
            f"({accelerator.num_processes}): launch with --num_processes {processes}."
        )
    try:
        accelerator.load_state(str(path))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{path} does not fit these networks: it was written with other options. Start with the options in "
            f"training_config.json beside it. ({error})"
        ) from error
    for name, part in own.items():
        state = torch.load(path / f"{name}_{accelerator.process_index}.pt", map_location="cpu", weights_only=True)
        part.load_state_dict(state)  # wherever it was saved: that device may not be here


def _problem(path: Path) -> str | None:
    """Why a checkpoint cannot be used, or None."""
    try:
        manifest = json.loads((path / MANIFEST_NAME).read_text())
        _, files = manifest["num_processes"], manifest["files"].items()
        changed = next((name for name, written in files if _size_and_checksum(path / name) != written), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{error!r}"
    return changed and f"{changed} has changed since it was written"


def _size_and_checksum(file: Path) -> list[int]:
    """Bytes and CRC-32 of the content."""
    checksum = 0
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            checksum = zlib.crc32(block, checksum)
    return [file.stat().st_size, checksum]
