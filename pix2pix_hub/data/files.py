"""Image files of a folder: which there are, in which order, which belong together, and what identifies them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from pix2pix_hub.util import counted

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".npy"})
# Where sides {a} and {b} of split {s} lie; without {s}: the training split.
LAYOUTS = (("{s}/{a}", "{s}/{b}"), ("{a}/{s}", "{b}/{s}"), ("{s}{a}", "{s}{b}"), ("{s}_{a}", "{s}_{b}"), ("{a}", "{b}"))


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, in natural order (2 before 10); dot files are not images."""
    files = (entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES)
    return sorted((file for file in files if file.is_file() and not file.name.startswith(".")), key=natural)


def images_below(folder: Path) -> list[Path]:
    """Image files at any depth of a folder, in natural order; nothing hidden."""
    found = (entry for entry in folder.rglob("*") if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file())
    inside = {entry: entry.relative_to(folder).parts for entry in found}
    seen = [entry for entry, parts in inside.items() if not any(part.startswith(".") for part in parts)]
    return sorted(seen, key=lambda entry: [natural(Path(part)) for part in inside[entry]])


def left_aside(folders: Iterable[Path], used: Iterable[Path]) -> str:
    """What lies in folders beside what of them is used, in words ("2 .txt, 1 folder, 3 broken links"; "" for nothing).

    Hidden files are not spoken of.
    """
    known = set(used)
    entries = (entry for folder in folders for entry in folder.iterdir() if not entry.name.startswith("."))
    kinds = Counter(_kind(entry) for entry in entries if entry not in known)
    words = [f"{count} {kind}" if kind.startswith(".") else counted(count, kind) for kind, count in kinds.most_common()]
    return ", ".join(words)


def _kind(entry: Path) -> str:
    if entry.is_dir():
        return "folder"
    return (entry.suffix.lower() or "file") if entry.exists() else "broken link"


def natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """What files are ordered by."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def side_folders(root: Path, sides: tuple[str, str], splits: Iterable[str]) -> dict[str, tuple[Path, Path]]:
    """Split → the folders of its two sides, in the first of `LAYOUTS` that there is; names fit in any case.

    The layout without splits counts as "train".
    """
    folders = {path.relative_to(root).as_posix().lower(): path for path in _folders(root)}
    for layout in LAYOUTS:
        names = list(splits) if "{s}" in layout[0] else ["train"]
        found = {}
        for split in names:
            keys = (side.format(a=sides[0], b=sides[1], s=split).lower() for side in layout)
            pair = [folders[key] for key in keys if key in folders and images_in(folders[key])]
            if len(pair) == 2:
                found[split] = (pair[0], pair[1])
        if found:
            return found
    return {}


def _folders(root: Path) -> list[Path]:
    """Folders in `root`, and those in them."""
    first = sorted(path for path in root.iterdir() if path.is_dir())
    return first + [path for folder in first for path in sorted(folder.iterdir()) if path.is_dir()]


def fingerprint(root: Path, files: Iterable[Path] | None = None) -> str:
    """Hash over the names inside `root` and the sizes of its files (all that are not hidden, or those given)."""
    digest = hashlib.sha256()
    for file in sorted(files or root.rglob("*")):
        name = file.relative_to(root).as_posix()
        if file.is_file() and not any(part.startswith(".") for part in Path(name).parts):
            digest.update(f"{name}\0{file.stat().st_size}\0".encode())
    return f"files-{digest.hexdigest()[:16]}"


def contents(root: Path) -> str:
    """What a folder without pairs holds, for the error that says so."""
    suffixes = Counter(file.suffix or "no suffix" for file in islice(root.rglob("*"), 10_000) if file.is_file())
    if not suffixes:
        return "an empty folder"
    below = sorted(folder.parent for folder in root.glob("*/train") if folder.is_dir())
    hint = f" (did you mean --dataset {below[0]}?)" if below else ""
    return "a folder of " + ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5)) + hint
