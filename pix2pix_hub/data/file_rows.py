"""Image files → undecoded rows: which files are a pair, and what is wrong where that cannot be told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Sequence, Value
from datasets import Image as ImageFeature

from pix2pix_hub.data.files import images_in, natural

IMAGE_COLUMN = "image"  # of files that are each a row by themselves


@dataclass(frozen=True)
class FileRow:
    """The files of one row, and why they are no pair."""

    files: tuple[Path | None, ...]  # one a column; None: there is none
    fault: str | None = None


def image_rows(root: Path, files: Iterable[Path]) -> Dataset:
    """Each file a row, in column `IMAGE_COLUMN`; see `_rows` for the others."""
    return _rows(root, (IMAGE_COLUMN,), [FileRow((file,)) for file in files])


def paired_rows(root: Path, sides: tuple[str, str], folders: tuple[Path, Path]) -> Dataset:
    """Files of two folders that have the same name but for the suffix, in columns `sides`; see `_rows`."""
    groups: dict[str, tuple[list[Path], list[Path]]] = {}
    for side, folder in enumerate(folders):
        for file in images_in(folder):
            groups.setdefault(file.stem, ([], []))[side].append(file)
    rows = [row for group in groups.values() for row in _paired(root, folders, group)]
    return _rows(root, sides, sorted(rows, key=lambda row: natural(next(filter(None, row.files)))))


def _paired(root: Path, folders: tuple[Path, Path], group: tuple[list[Path], list[Path]]) -> Iterator[FileRow]:
    """The rows of all files of one stem."""
    first, second = group
    if [file.name for file in first] == [file.name for file in second] or len(first) == len(second) == 1:
        yield from (FileRow(pair) for pair in zip(first, second, strict=True))
    elif not first or not second:
        for file in first or second:
            missing = _name(root, folders[1] if first else folders[0])
            fault = f"{_name(root, file)} has no partner: no file of its name, whatever the suffix, in {missing}."
            yield FileRow((file, None) if first else (None, file), fault)
    else:
        names = [" and ".join(_name(root, file) for file in files) for files in group]
        verb = {1: "would pair", 2: "would both pair"}.get(len(first), "would all pair")
        fault = f"{names[0]} {verb} with {names[1]}: keep one on each side, or give the others names of their own."
        yield FileRow((first[0], second[0]), fault)


def _rows(root: Path, columns: tuple[str, ...], rows: list[FileRow]) -> Dataset:
    """Undecoded image columns and, named inside `root`: `name`, the first file of a row; `pair_files`, that of each
    column ("" for none); `pair_fault`, what is wrong, or None."""
    names = [["" if file is None else _name(root, file) for file in row.files] for row in rows]
    content: dict[str, list[Any]] = {
        "name": [next(filter(None, files)) for files in names],
        "pair_files": names,
        "pair_fault": [row.fault for row in rows],
    }
    features = {"name": Value("string"), "pair_files": Sequence(Value("string")), "pair_fault": Value("string")}
    for place, column in enumerate(columns):
        content[column] = [_stored(row.files[place]) for row in rows]
        features[column] = ImageFeature(decode=False)
    return Dataset.from_dict(content, features=Features(features))


def _stored(file: Path | None) -> dict[str, Any] | None:
    return None if file is None else {"bytes": None, "path": str(file.absolute())}


def _name(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()
