"""Small things that everything uses: the error for people, atomic writing, bounded reading, numbers in sentences,
versions."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

__version__ = "0.1.0"
PARTIAL_SUFFIX = ".partial"
MAX_JSON_BYTES, MAX_JSON_DEPTH = 1 << 20, 16  # an export's own have at most some 100 KB in 5 levels
RECORDED_PACKAGES = (
    "torch", "torchvision", "accelerate", "datasets", "huggingface_hub", "safetensors", "torchmetrics",
    "torch-fidelity", "numpy", "pillow",
)  # fmt: skip


class UserError(ValueError):
    """Says what came, what was expected and what to type next.

    The command lines print its text without a traceback. Code raises it at the border, before any download or
    GPU work, and chains the library's own exception as its cause where there is one.
    """


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


def write_json(path: Path, content: Any) -> None:
    """Write JSON aside, then in place."""
    with write_aside(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


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


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Make processes that would all fill `folder` wait for each other; its parent is made where it is missing."""
    from filelock import FileLock  # few commands need it

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        yield


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


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of an export, anybody's; {} where there is no file. All its numbers are finite.

    Raises:
        UserError: not to be read, of more than `MAX_JSON_BYTES`, not JSON (which has no NaN), nested deeper than
            `MAX_JSON_DEPTH`, or no object.
    """
    if not os.path.isfile(path):
        return {}
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise ValueError(f"more than {MAX_JSON_BYTES} bytes")
        content = json.loads(data, parse_constant=_number, parse_float=_number, parse_int=_number)
        level = [content]
        for _ in range(MAX_JSON_DEPTH):
            level = [
                inside
                for value in level
                if isinstance(value, dict | list)
                for inside in (value.values() if isinstance(value, dict) else value)
            ]
        if level:
            raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels")
        json.dumps(content, ensure_ascii=False).encode()  # halves of characters, which nothing could print
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON of an export ({error}): export or fetch the model again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(content).__name__}: export or fetch it again.")
    return content


def _number(text: str) -> int | float:
    value = int(text) if len(text) < 20 and text.lstrip("-").isdigit() else float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} in place of a number")
    return value


def is_own_file(path: Path, folder: Path) -> bool:
    """Whether `path` leads to a file in `folder`, not through a link to one elsewhere, which nobody meant to show.

    In the Hub's cache all files of `snapshots/COMMIT` are links into `blobs`.
    """
    home = Path(os.path.realpath(folder))
    blobs = [home.parents[1] / "blobs"] if home.parent.name == "snapshots" else []
    return any(Path(os.path.realpath(path)).is_relative_to(place) for place in (home, *blobs))


def public_name(place: str) -> str:
    """Of a local path (of several, with commas between them, of each) the last part, else the name as it is: where a
    folder lies is nobody else's business."""
    paths = [(part, Path(part).expanduser()) for part in place.split(",")]
    return ",".join(path.resolve().name if path.is_absolute() or path.exists() else part for part, path in paths)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def counted(count: float, noun: str) -> str:
    """ "1 pair", "2 pairs", "2 processes", "1.5 epochs": the noun, which comes in the singular, agrees."""
    number = str(count) if isinstance(count, int) else f"{count:.4g}"
    ending = "" if number == "1" else "es" if noun.endswith(("s", "x", "ch", "sh")) and noun != "epoch" else "s"
    return f"{number} {noun}{ending}"


def duration(seconds: float) -> str:
    """ "45 s", "3 min 20 s", "2 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(hours or minutes) + [f"{rest} s"] * (not hours)
    return " ".join(parts)


def styled(text: str, style: Literal["bold", "red", "yellow"]) -> str:
    """Text for standard error, in that style where a terminal shows it and NO_COLOR is not set."""
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{dict(bold=1, red=31, yellow=33)[style]}m{text}\033[0m"


def say(text: str) -> None:
    """A command's answer, on standard output."""
    sys.stdout.write(text + "\n")


def library_versions() -> dict[str, str]:
    """Versions of Python and of what training and measuring depend on."""
    versions = {"python": platform.python_version(), "pix2pix_hub": __version__}
    return versions | {package: version(package) for package in RECORDED_PACKAGES}
