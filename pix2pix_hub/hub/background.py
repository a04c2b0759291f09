"""Pushing while training goes on: from a thread, which neither stops nor outlives it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from pix2pix_hub.hub.failures import PushError
from pix2pix_hub.hub.push import check_export, retrying

logger = logging.getLogger(__name__)

SNAPSHOT_PREFIX = ".push_"


class BackgroundPush:
    """Pushes the exports it is given, one after the other; of those that wait only the newest.

    A failure is logged in one line and kept in `failure`; the next export is tried all the same. An export may be
    replaced while it is pushed: its files are hard-linked beside it first.

    Args:
        push: makes one attempt at pushing a folder, and returns the commit's address; raises `PushError`.
        repo_id: for what is said.
    """

    def __init__(self, push: Callable[[Path], str], repo_id: str) -> None:
        self.failure: str | None = None
        """Why the newest export that was tried is not on the Hub."""
        self._push, self._repo_id = push, repo_id
        self._changed = threading.Condition()
        self._waiting: Path | None = None
        self._ending = False  # no more exports will come
        self._abandoned = False
        self._snapshots: set[Path] = set()
        self._thread: threading.Thread | None = None

    def submit(self, export: Path) -> None:
        """Push the export as it is now, as soon as the one before is through."""
        check_export(export)
        if self._thread is None:
            disable_progress_bars()  # training has one of its own
            _remove_leftovers(export.parent)
            # a daemon: the process may end while it waits for the network
            self._thread = threading.Thread(target=self._work, name="push", daemon=True)
            self._thread.start()
        snapshot = _snapshot(export)
        with self._changed:
            self._snapshots.add(snapshot)
            superseded, self._waiting = self._waiting, snapshot
            self._changed.notify_all()
        self._discard(superseded)

    def finish(self, stopped: Callable[[], bool], poll_seconds: float = 0.2) -> bool:
        """Wait until everything is pushed, or has failed for good, or `stopped()`; whether the last export is there."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        while self._thread is not None and self._thread.is_alive() and not stopped():
            self._thread.join(poll_seconds)
        return self.abandon()

    def abandon(self) -> bool:
        """Start nothing more and wait for nothing; whether the last export had been pushed by now."""
        with self._changed:
            done = not self._snapshots and self.failure is None
            self._ending = self._abandoned = True
            self._changed.notify_all()
        for snapshot in list(self._snapshots):
            self._discard(snapshot)
        return done

    # --- in the thread ---

    def _work(self) -> None:
        while (snapshot := self._next()) is not None:
            try:
                url = retrying(lambda folder=snapshot: self._push(folder), self._repo_id, self._give_up)  # type: ignore[misc]
                self.failure = None
                logger.info("Pushed to %s", url)
            except Exception as error:  # whatever it is, training goes on; it is said now, and again at the end
                self._note(error)
            self._discard(snapshot)

    def _next(self) -> Path | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._ending)
            snapshot, self._waiting = self._waiting, None
            return None if self._abandoned else snapshot

    def _give_up(self, seconds: float) -> bool:
        """Wait; a newer export, or the end of everything, ends the trying."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting is not None or self._abandoned, timeout=seconds)

    def _note(self, error: Exception) -> None:
        self.failure = str(error) if isinstance(error, PushError) else repr(error)
        with self._changed:
            if not self._abandoned and self._waiting is None:
                logger.warning("Not pushed to %s: %s Training goes on.", self._repo_id, self.failure)

    def _discard(self, snapshot: Path | None) -> None:
        if snapshot is not None:
            shutil.rmtree(snapshot, ignore_errors=True)
            with self._changed:
                self._snapshots.discard(snapshot)


def _snapshot(export: Path) -> Path:
    """The export under another name, beside it: the same files, whatever takes its place."""
    folder = Path(tempfile.mkdtemp(prefix=SNAPSHOT_PREFIX, dir=export.parent))
    shutil.copytree(export, folder, copy_function=_link, dirs_exist_ok=True)
    return folder


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError:  # a file system without hard links
        shutil.copy2(source, destination)


def _remove_leftovers(run_folder: Path) -> None:
    """Snapshots of a process that was killed."""
    for folder in run_folder.glob(f"{SNAPSHOT_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)
