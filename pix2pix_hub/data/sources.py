"""Undecoded rows from wherever people keep images: folders of files, tables that `datasets` reads, the Hub."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from datasets import Sequence as SequenceFeature
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pix2pix_hub.config import DatasetOptions
from pix2pix_hub.util import UserError, counted

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".npy"})
# Where sides {a} and {b} of split {s} lie; without {s}: the training split.
LAYOUTS = (("{s}/{a}", "{s}/{b}"), ("{a}/{s}", "{b}/{s}"), ("{s}{a}", "{s}{b}"), ("{s}_{a}", "{s}_{b}"), ("{a}", "{b}"))
IMAGE_COLUMN = "image"  # of files that are each a row by themselves
BUILDERS = {  # suffix of a single file → the `datasets` builder that reads it
    ".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tar": "webdataset",
}  # fmt: skip
TABLES = (".parquet", ".arrow", ".tar")  # that hold images themselves
HUB_TIMEOUT_SECONDS = 10

# --- folders of files


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


FileRow = tuple[tuple[Path | None, ...], str | None]  # files, one a column (None: missing), and why they are no pair


def image_rows(root: Path, files: Iterable[Path]) -> Dataset:
    """Each file a row, in column `IMAGE_COLUMN`; see `_rows` for the others."""
    return _rows(root, (IMAGE_COLUMN,), [((file,), None) for file in files])


def paired_rows(root: Path, sides: tuple[str, str], folders: tuple[Path, Path]) -> Dataset:
    """Files of two folders that have the same name but for the suffix, in columns `sides`; see `_rows`."""
    groups: dict[str, tuple[list[Path], list[Path]]] = {}
    for side, folder in enumerate(folders):
        for file in images_in(folder):
            groups.setdefault(file.stem, ([], []))[side].append(file)
    rows = [row for group in groups.values() for row in _paired(root, folders, *group)]
    return _rows(root, sides, sorted(rows, key=lambda row: natural(next(filter(None, row[0])))))


def _paired(root: Path, folders: tuple[Path, Path], first: list[Path], second: list[Path]) -> Iterator[FileRow]:
    """The rows of all files of one stem."""
    if [file.name for file in first] == [file.name for file in second] or len(first) == len(second) == 1:
        yield from ((pair, None) for pair in zip(first, second, strict=True))
    elif not first or not second:
        for file in first or second:
            missing = _name(root, folders[1] if first else folders[0])
            fault = f"{_name(root, file)} has no partner: no file of its name, whatever the suffix, in {missing}."
            yield (file, None) if first else (None, file), fault
    else:
        names = [" and ".join(_name(root, file) for file in files) for files in (first, second)]
        verb = {1: "would pair", 2: "would both pair"}.get(len(first), "would all pair")
        fault = f"{names[0]} {verb} with {names[1]}: keep one on each side, or give the others names of their own."
        yield (first[0], second[0]), fault


def _rows(root: Path, columns: tuple[str, ...], rows: list[FileRow]) -> Dataset:
    """Undecoded image columns and, named inside `root`: `name`, the first file of a row; `pair_files`, that of each
    column ("" for none); `pair_fault`, what is wrong, or None."""
    names = [["" if file is None else _name(root, file) for file in files] for files, _ in rows]
    content: dict[str, list[Any]] = {
        "name": [next(filter(None, files)) for files in names],
        "pair_files": names,
        "pair_fault": [fault for _, fault in rows],
    }
    features = {"name": Value("string"), "pair_files": SequenceFeature(Value("string")), "pair_fault": Value("string")}
    for place, column in enumerate(columns):
        files = [files[place] for files, _ in rows]
        content[column] = [file and {"bytes": None, "path": str(file.absolute())} for file in files]
        features[column] = ImageFeature(decode=False)
    return Dataset.from_dict(content, features=Features(features))


def _name(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


# --- tables


def is_loose(path: Path) -> bool:
    """A folder that `datasets` has not saved itself."""
    return path.is_dir() and not (path / "dataset_dict.json").is_file() and not (path / "state.json").is_file()


def open_table(path: Path, request: DatasetOptions, advice: str) -> tuple[Any, str]:
    """What `datasets` reads: a Hub data set, a single file, what it saved itself, else a folder; and what it is.

    Raises:
        UserError: nothing there, or it cannot be read; the text ends with `advice`, which says what works.
    """
    if not request.dataset or not path.exists():
        return open_on_hub(request.dataset, request.dataset_revision, advice)
    if path.is_dir():
        load = datasets.load_dataset if is_loose(path) else datasets.load_from_disk
        return _read(request, advice, lambda: load(str(path))), fingerprint(path)
    if (builder := BUILDERS.get(path.suffix.lower())) is None:
        known = ", ".join(BUILDERS)
        raise UserError(f"--dataset {request.dataset} is a single file, but none of {known}. {advice}")
    loaded = _read(request, advice, lambda: datasets.load_dataset(builder, data_files=str(path)))
    return loaded, fingerprint(path.parent, [path])


def _read(request: DatasetOptions, advice: str, load: Callable[[], Any]) -> Any:
    """Whatever goes wrong inside `datasets`, in words that name the flag."""
    try:
        return load()
    except Exception as error:
        raise UserError(
            f"--dataset {request.dataset} could not be read by `datasets` ({describe(error)}). {advice}"
        ) from error


def holds_images(feature: Any) -> bool:
    """An image column, or bytes as libraries other than `datasets` write them."""
    if isinstance(feature, dict):
        return "bytes" in feature and holds_images(feature["bytes"])
    return isinstance(feature, ImageFeature) or (isinstance(feature, Value) and feature.dtype.endswith("binary"))


def undecoded(rows: Dataset, columns: Sequence[str], split: str, request: DatasetOptions) -> Dataset:
    """Those columns of a split, as `{"bytes", "path"}` or None.

    Raises:
        UserError: it lacks one.
    """
    if absent := [column for column in columns if column not in rows.column_names]:
        raise UserError(
            f"--dataset {request.dataset}: split {split} has no column {' or '.join(absent)} "
            f"(columns: {', '.join(rows.column_names)}). All splits need the same."
        )
    rows = rows.with_format(None).select_columns(list(columns))
    for column in columns:
        rows = rows.cast_column(column, ImageFeature(decode=False))
    return rows


# --- the Hub


def open_on_hub(
    name: str, revision: str | None, advice: str, load: Callable[..., Any] | None = None
) -> tuple[Any, str]:
    """Load every split of data set `name` (user/name).

    Args:
        advice: what works instead, the end of an error's text.
        load: called with the name and `revision`, a commit; None: `datasets.load_dataset`, the only one that finds
            earlier downloads.

    Returns:
        What `load` returns, and the commit.

    Raises:
        UserError: no such id, private or gated, no such revision, or neither network nor an earlier download.
    """
    absent = f"--dataset {name!r} is neither a folder or file on this machine nor a data set on the Hub"
    if not re.fullmatch(r"([\w.-]+/)?[\w.-]+", name, re.ASCII) or set(name) <= set("./"):
        raise UserError(f"{absent} (ids there look like user/name). {advice}")
    try:
        # `load_dataset` alone would retry for half a minute when there is no network
        commit = HfApi().dataset_info(name, revision=revision, timeout=HUB_TIMEOUT_SECONDS).sha
    except GatedRepoError as error:
        page = f"https://huggingface.co/datasets/{name}"
        raise UserError(f"--dataset {name} is gated: ask for access at {page}, then `hf auth login`.") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{absent}. If it is private, `hf auth login` first. {advice}") from error
    except RevisionNotFoundError as error:
        raise UserError(f"--dataset-revision {revision!r} does not exist in data set {name}.") from error
    except Exception as error:  # no network, HF_HUB_OFFLINE, a proxy: what was downloaded before still works
        if load is not None:
            raise UserError(f"{absent} that could be reached ({describe(error)}). {advice}") from error
        return _open_cached(name, revision, f"{absent} that could be reached", error, advice)
    try:
        return (load or datasets.load_dataset)(name, revision=commit), str(commit)
    except Exception as error:
        raise UserError(f"--dataset {name}: its download failed ({describe(error)}). {advice}") from error


def _open_cached(name: str, revision: str | None, absent: str, unreachable: Exception, advice: str) -> tuple[Any, str]:
    online, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True  # straight to the cache
    try:
        builder = datasets.load_dataset_builder(name)
        loaded = builder.as_dataset()
    except Exception as error:
        way_out = (
            "Unset HF_HUB_OFFLINE to look there."
            if isinstance(unreachable, OfflineModeIsEnabled)
            else "Check the network and the spelling. Without a network, HF_HUB_OFFLINE=1 uses earlier downloads."
        )
        raise UserError(
            f"{absent} ({describe(unreachable)}), and no earlier download of it is cached. {way_out} {advice}"
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = online
    if revision not in (None, builder.hash):
        raise UserError(
            f"--dataset-revision {revision}: the Hub is out of reach and the earlier download of {name} is commit "
            f"{builder.hash}. Connect, or give that commit."
        ) from unreachable
    return loaded, str(builder.hash)


def describe(error: Exception) -> str:
    """An exception in one line: its class and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
