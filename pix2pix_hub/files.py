"""Writing so that a reader, or a run killed half-way, only ever sees the old content or the whole new one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL_SUFFIX = ".partial"


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file to; it takes `path`'s place when the block ends without error."""
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        yield partial
        _flush(partial)
        partial.replace(path)
    finally:
        with suppress(OSError):  # of a disk that may not be written to; what went wrong first is what is to be said
            partial.unlink(missing_ok=True)


@contextmanager
def write_folder_aside(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` to fill; it takes `path`'s place when the block ends without error.

    Where `path` exists it is moved away and deleted afterwards: for a moment there may be none, never half of one.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        publish_folder(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def publish_folder(partial: Path, path: Path) -> None:
    """Flush all files of `partial` to the disk, then let it take `path`'s place."""
    for file in partial.rglob("*"):
        _flush(file)
    replaced = path.with_name(path.name + ".replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if path.exists():
        path.rename(replaced)
    partial.rename(path)
    _flush(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def public_name(place: str) -> str:
    """Of a local path the last part, else the name as it is: where a folder lies is nobody else's business."""
    path = Path(place).expanduser()
    return path.resolve().name if path.is_absolute() or path.exists() else place


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
