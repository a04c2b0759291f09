"""The folder of a run: where it is, whether a run may go on in it, and what it says about its options and bad pairs."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from pix2pix_hub.config import TrainingConfig, flag
from pix2pix_hub.data.decode import BAD_PAIRS_NAME, LISTED_FAULTS, Fault, write_bad_pairs
from pix2pix_hub.devices import sharing_failures
from pix2pix_hub.export import TRAINING_CONFIG_NAME
from pix2pix_hub.training.checkpoint import fail_together
from pix2pix_hub.util import PARTIAL_SUFFIX, UserError, library_versions, write_json

logger = logging.getLogger(__name__)

RUNS = Path("runs")
LOCK_NAME = ".lock"  # held by the run at work in the folder; it stays, and says who held it last
NO_FILES = {LOCK_NAME, TRAINING_CONFIG_NAME + PARTIAL_SUFFIX}  # of a run that was killed as it began
# Options that may differ between a run and its continuation: any other would make it another run.
CHANGEABLE = {
    "epochs", "decay_epochs", "max_steps", "early_stopping_patience",
    "output_dir", "resume", "checkpoint_every", "keep_checkpoints", "dry_run",
    "num_workers", "cache", "cpu_threads", "log_every", "sample_count", "report_to",
    "push_to_hub", "hub_private", "hub_revision", "push_every",
}  # fmt: skip


# --- where it is


def find_together(config: TrainingConfig) -> tuple[Path, TrainingConfig | None]:
    """The folder of a run, new or to go on in, and what the latter was started with; nothing is created.

    The first process looks and tells the others of the launch, whose machines need not have the folder.

    Raises:
        UserError: see `run_to_resume`, `new_run_folder` and `stored_config`.
    """
    folder, stored = RUNS, None
    with sharing_failures():
        if PartialState().is_main_process:
            folder = run_to_resume(config.output_dir) if config.resume else new_run_folder(config)
            stored = stored_config(folder) if config.resume else None
    folder, stored = broadcast_object_list([folder, stored])
    return folder, stored


def new_run_folder(config: TrainingConfig) -> Path:
    """The folder a new run goes to; nothing is created.

    Raises:
        UserError: it holds a run or other files already.
    """
    if config.output_dir is None:
        prefix = re.sub(r"[^\w.-]+", "_", f"{Path(config.dataset).name}_{config.preset}")
        numbers = [int(match[1]) for path in RUNS.glob(f"{prefix}_*") if (match := re.search(r"_(\d+)$", path.name))]
        return RUNS / f"{prefix}_{max(numbers, default=0) + 1:03d}"
    folder = Path(config.output_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output-dir {folder} is a file: name a folder that does not exist yet.")
    if (folder / TRAINING_CONFIG_NAME).exists():
        raise UserError(
            f"--output-dir {folder} already holds a run, which is never overwritten: add --resume to go on with it, or "
            "name another folder."
        )
    if _holds_files(folder):
        raise UserError(f"--output-dir {folder} is not empty and holds no run: name another folder.")
    return folder


def run_to_resume(output_dir: str | None) -> Path:
    """The folder to go on in: `output_dir`, else the newest run under runs/.

    Raises:
        UserError: there is none, or it holds something else.
    """
    if output_dir is None:
        runs = sorted(RUNS.glob(f"*/{TRAINING_CONFIG_NAME}"), key=lambda path: path.stat().st_mtime)
        if not runs:
            raise UserError(
                f"--resume found no run under {RUNS}/: name one with --output-dir, or leave --resume out to start one."
            )
        return runs[-1].parent
    folder = Path(output_dir)
    if _holds_files(folder) and not (folder / TRAINING_CONFIG_NAME).exists():
        raise UserError(f"--resume: {folder} holds files but no {TRAINING_CONFIG_NAME}: it is no run. Name another.")
    return folder


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(path.name not in NO_FILES for path in folder.iterdir())


# --- who may work in it


@contextmanager
def claimed(config: TrainingConfig, folder: Path, stored: TrainingConfig | None) -> Iterator[Path]:
    """Keep other runs out of a run's folder, which is made where there is none, while the block lasts.

    The main process does it for all, which yield the same folder: of a new numbered one the next where somebody else
    has made that meanwhile.

    Args:
        stored: what `stored_config` said of the run to go on with.

    Raises:
        UserError: another run is at work in it, or has been since; it cannot be made or written to.
    """
    with ExitStack() as lock:
        with fail_together(folder):
            if PartialState().is_main_process:
                folder = _claim(config, folder, stored, lock)
        yield Path(broadcast_object_list([str(folder)])[0])


def _claim(config: TrainingConfig, folder: Path, stored: TrainingConfig | None, lock: ExitStack) -> Path:
    """The main process's part of `claimed`."""
    numbered = not config.resume and config.output_dir is None
    try:
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=not numbered)
                _lock(lock.enter_context((folder / LOCK_NAME).open("a+", errors="replace")))
                break
            except FileExistsError:  # somebody was quicker
                if not numbered:
                    raise
                folder = new_run_folder(config)
    except OSError as error:
        raise UserError(
            f"the run folder {folder} cannot be written to ({error}): free some space or make it writable, or name "
            "another with --output-dir."
        ) from error
    if not config.resume and not numbered:
        new_run_folder(config)
    elif config.resume and stored_config(folder) != stored:
        raise UserError(f"the run in {folder} was begun or went on meanwhile: look at it, then try again.")
    return folder


def _lock(file: TextIO) -> None:
    """Lock the folder that `file` is in until it is closed; when this process dies the kernel lets go of it.

    Raises:
        UserError: another run is at work there.
    """
    folder = Path(file.name).parent
    if sys.platform == "win32":
        logger.warning("%s is not locked on Windows: see to it that no second run is started in it.", folder)
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip()
        raise UserError(
            f"another run is at work in {folder}{holder and f' ({holder})'}: wait for its end or stop it (Ctrl-C or "
            "`kill`; it saves first), then go on with --resume; or name another folder with --output-dir."
        ) from error
    except OSError as error:  # ENOSYS, ENOLCK or EOPNOTSUPP: some network file systems, or how they are mounted
        logger.warning("%s cannot be locked (%s): see to it that no second run is started in it.", folder, error)
    os.register_at_fork(after_in_child=file.close)  # a loader's worker, which can outlive this process by seconds
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()


# --- what it was started with


def stored_config(folder: Path) -> TrainingConfig | None:
    """The options the run in `folder` was started with, or None where nothing was started yet."""
    path = folder / TRAINING_CONFIG_NAME
    return TrainingConfig.from_json(path) if path.exists() else None


def check_same_run(stored: TrainingConfig, asked: TrainingConfig) -> None:
    """Options that would make it another run must not differ.

    Raises:
        UserError: naming each that does, with both values.
    """
    old, new = stored.to_dict(), asked.to_dict()
    skips_now = ["on_bad_pair"] if new["streaming"] and new["on_bad_pair"] == "skip" else []  # none was met until now
    changed = [name for name in old if old[name] != new[name] and name not in CHANGEABLE.union(skips_now)]
    if changed:
        differences = ", ".join(f"{flag(name)} {new[name]} (the run has {old[name]})" for name in changed)
        raise UserError(
            f"--resume cannot change {differences}: leave it out to go on with the run as it was started, or start a "
            "new one without --resume."
        )


def check_same_pairs(folder: Path, fingerprint: str) -> None:
    """The run in `folder`, which the first process sees, was started on the same pairs.

    Raises:
        UserError: files were added, removed or changed since; on all processes.
    """
    with sharing_failures():
        recorded = fingerprint
        if PartialState().is_main_process:
            recorded = json.loads((folder / TRAINING_CONFIG_NAME).read_text())["dataset"]["fingerprint"]
        if recorded != fingerprint:
            raise UserError(
                f"--resume: the pairs have changed since {folder} was started (fingerprint {recorded}, now "
                f"{fingerprint}): put them back as they were, or start a new run without --resume."
            )


def write_training_config(folder: Path, config: TrainingConfig, facts: dict[str, Any]) -> None:
    """Write `training_config.json`: resolved options, library versions and `facts` (data set, command, …)."""
    options = config.to_dict() | {"resume": False, "output_dir": None}  # of the machine, not of the model
    path = folder / TRAINING_CONFIG_NAME
    content = {"options": options, **facts, "versions": library_versions()}
    if path.exists():  # a resumed run may have been given more epochs; what it was started with stays
        content = json.loads(path.read_text()) | {"options": options}
    write_json(path, content)


# --- its bad pairs


def record_bad_pairs(folder: Path, faults: tuple[Fault, ...], recorded: tuple[Fault, ...] | None) -> None:
    """Keep `bad_pairs.jsonl`, and their count in `training_config.json`, up to date; log those that are new.

    Args:
        faults: all that are known.
        recorded: those that were known at the call before; None: it is the first of this session.
    """
    if faults == recorded:
        return
    known = set(faults if recorded is None else recorded)
    new = [fault for fault in faults if fault not in known]
    for fault in new[:LISTED_FAULTS]:
        logger.warning("Left out: %s", fault.reason)
    if new:
        logger.warning("%d bad pairs left out so far: %s", len(faults), folder / BAD_PAIRS_NAME)
    if faults:
        write_bad_pairs(folder, faults)
    else:  # of a run that was set back to before it met them
        (folder / BAD_PAIRS_NAME).unlink(missing_ok=True)
    path = folder / TRAINING_CONFIG_NAME
    content = json.loads(path.read_text())
    content["dataset"]["left_out"] = len(faults)
    write_json(path, content)
