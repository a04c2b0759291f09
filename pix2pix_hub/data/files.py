"""Image files of a folder: which there are, in which order, and what identifies them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, in natural order (2 before 10); dot files are not images."""
    files = (entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES)
    return sorted((file for file in files if file.is_file() and not file.name.startswith(".")), key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


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
