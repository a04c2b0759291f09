"""Pairs from wherever people keep them: the one place that knows forms, column names and splits.

`find_pairs` tells the form by looking, and returns it as a Hugging Face `datasets.Dataset` per split with either one
image column (A and B side by side) or two (A, then B), undecoded. `load_pairs` makes of it what is trained and what is
validated on; sets that are streamed come from `stream.py`.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from datasets import Sequence as SequenceFeature
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pix2pix_hub.config import DatasetOptions, MakerOptions, PairOptions
from pix2pix_hub.data.cache import KeepWhileLooking
from pix2pix_hub.data.decode import Findings, PairDataset, examine, file_in_words, file_of, read_stored
from pix2pix_hub.data.rasters import window_rows
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.image.read import Decoded
from pix2pix_hub.synthetic import CMP_CLASSES, render_pair
from pix2pix_hub.util import UserError, counted, read_object

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".npy"})
RESULT_MARK = ".pix2pix"  # in the names of results that `translate` puts beside their sources
# Where sides {a} and {b} of split {s} lie; without {s}: the training split.
LAYOUTS = (("{s}/{a}", "{s}/{b}"), ("{a}/{s}", "{b}/{s}"), ("{s}{a}", "{s}{b}"), ("{s}_{a}", "{s}_{b}"), ("{a}", "{b}"))
MAKER_NAME, MADE_COLUMNS = "source_maker.json", ("source", "target")  # of sets that `data make` wrote
IMAGE_COLUMN = "image"  # of files that are each a row by themselves
BUILDERS = {  # suffix of a single file → the `datasets` builder that reads it
    ".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tar": "webdataset",
}  # fmt: skip
TABLES = (".parquet", ".arrow", ".tar")  # that hold images themselves
HUB_TIMEOUT_SECONDS = 10
SYNTHETIC = "synthetic"
SYNTHETIC_SPLITS = {"train": range(0, 400), "validation": range(10_000, 10_040)}
# Columns (or folders) A and B as data sets name them, compared without case, "_" and "-"; the first that fits is taken.
KNOWN_COLUMNS = (
    ("source", "target"), ("source_image", "target_image"), ("imageA", "imageB"), ("A", "B"), ("image_1", "image_2"),
    ("input", "output"), ("input", "target"), ("input_image", "output_image"), ("input_image", "target_image"),
    ("input_image", "edited_image"), ("original_image", "edited_image"), ("conditioning_image", "image"),
    ("control_image", "image"), ("before", "after"), ("sketch", "photo"), ("edges", "photo"), ("label", "photo"),
)  # fmt: skip
ChooseColumns = Callable[[Features, DatasetOptions], tuple[str, ...]]
FORMS_THAT_WORK = f"""Forms that work:
  - a folder of images that show A (left half) and B (right half) side by side, with train/ and val/ or without;
  - folders A/ and B/ whose files pair by name (also train/A train/B, A/train B/train, trainA trainB);
  - a folder made by `save_to_disk`, Parquet, Arrow or WebDataset files, an image folder with metadata.jsonl, or a Hub
    data set (user/name), each with one column of side-by-side images or two image columns;
  - `--dataset {SYNTHETIC}`."""
VALIDATION_NAMES = ("validation", "val", "valid", "dev", "test")
SPLIT_SEED = 0
VALIDATION_FRACTION = 0.1  # of the training pairs, where there is no validation split


@dataclass(frozen=True)
class FoundPairs:
    """Undecoded rows of a data set of any form."""

    form: str  # "synthetic", "rasters", "side by side", "paired folders", "two columns" or "one column"
    splits: Mapping[str, Any]  # `Dataset` or `RasterRows`: `columns` as {"bytes", "path"} or None; `name`, where files
    columns: tuple[str, ...]  # one: A and B side by side; two: A, B
    fingerprint: str  # identifies data set and revision: the Hub's commit, else a hash over names and sizes
    class_names: dict[tuple[int, int, int], str] = field(default_factory=dict)  # by colour, where they are known
    ignored: str = ""  # what lies beside the images and is none of them, in words
    maker: MakerOptions | None = None  # how A was made from B, where `data make` did it

    def pairs(
        self, split: str, swap: bool, indices: Sequence[int] | None = None, least: tuple[int, int] = (1, 1)
    ) -> PairDataset:
        """Rows of a split (None: all), for `examine` to look at; `least` as `PairDataset` has it."""
        rows = self.splits[split]
        indices = range(len(rows)) if indices is None else indices
        return PairDataset(rows, indices, split, self.columns, swap, least=least)

    def image(self, split: str, number: int) -> tuple[str, str, Decoded]:
        """Of a row of one column that holds no pair: its name in errors, the stem of its file's name, and the image.

        Raises:
            UserError: an image that cannot be read.
        """
        row, column, place = self.splits[split][number], self.columns[0], f"row {number} of split {split}"
        name = row.get("name", f"{place}{file_in_words(row, column)}")
        return name, Path(file_of(row, column) or place).stem, read_stored(row[column], name)


@dataclass(frozen=True)
class PairSplits:
    """The pairs to train on and those to validate on."""

    train: PairDataset
    validation: PairDataset
    description: str  # one line for people: counts, form, direction, sizes (height x width), pixels
    form: str
    fingerprint: str
    dataset: str
    findings: Findings  # what looking at the pairs found; given to `load_pairs`, another process need not look again
    lengths: Sequence[int] | None = None  # rows of each shard that is streamed from; None: not a stream
    keeper: KeepWhileLooking | None = None  # what was kept decoded in that look
    maker: MakerOptions | None = None  # how the sources were made from the targets

    @property
    def formats(self) -> dict[str, PixelFormat]:
        """Format of the pixels of "source" and "target"."""
        return self.validation.formats


def load_pairs(
    request: PairOptions,
    *,
    findings: Findings | None = None,
    keep: Callable[[Sequence[PairDataset]], KeepWhileLooking | None] | None = None,
) -> PairSplits:
    """Find out which form a data set has, open it, and decode every pair once, before anything is trained.

    Args:
        request: which pairs. The synthetic set is rendered at `image_size`, others stay as stored.
        findings: of an earlier call with the same arguments, on this process or another: nothing is decoded.
        keep: from training and validation pairs, with formats as the first of them have, to what keeps them decoded.

    Raises:
        UserError: nothing there, a form or columns unknown, bad images, too few pairs. Says what to type next.
    """
    found = find_pairs(request)
    *parts, note = assign_splits(found, request)
    keeper = None
    if findings is None:
        everything = found.form != SYNTHETIC  # what was just rendered need not be looked at
        if keep is not None and everything:
            with suppress(UserError):  # none of the first can be read
                keeper = keep([*map(examine(parts, request, everything=False).applied_to, parts)])
        findings = examine(parts, request, everything=everything, names=found.class_names, visit=keeper)
        for words in findings.narrow:
            logger.warning("%s", words)
    train, validation = (findings.applied_to(part) for part in parts)
    if not len(train) or not len(validation):
        which = "validation" if len(train) else "training"
        raise UserError(f"--dataset {request.dataset}: no sound {which} pair is left.")
    if keeper is not None:
        keeper.finish([train, validation])
    pairs = f"{len(train)} training and {counted(len(validation), 'validation pair')}, {found.form}"
    notes = [f"; {counted(len(findings.faults), 'bad pair')} left out"] if findings.faults else []
    notes += [note, f"; ignored: {found.ignored}" if found.ignored else ""]
    description = describe(pairs, request, train, findings.size_words) + "".join(notes)
    identity = (found.form, found.fingerprint, request.dataset)
    maker = None if request.swap else found.maker
    return PairSplits(train, validation, description, *identity, findings, keeper=keeper, maker=maker)


def describe(counts: str, request: PairOptions, pairs: PairDataset, sizes: str) -> str:
    """The line for people: counts, direction, stored sizes → the one trained at, kinds of pixels."""
    height, width = request.image_height_width
    pixels = dict.fromkeys(stored.describe() for stored in pairs.formats.values())
    layout = f"{request.direction}: {' → '.join(pairs.sides)}"
    shown = f"crops of {height}x{width} from {sizes}" if request.resize == "native" else f"{sizes} → {height}x{width}"
    return f"{counts}, {layout}, {shown}, {' → '.join(pixels)}"


# --- splits


def validation_split_of(counts: Mapping[str, int | None], request: PairOptions) -> str | None:
    """The split that validates; None: some of the training split are to be set aside.

    Args:
        counts: pairs in each split; None: not known, but some.

    Raises:
        UserError: a split that was named has no rows.
    """
    for flag, split in (("train", request.train_split), ("validation", request.validation_split)):
        if split is not None and counts.get(split, 0) == 0:
            listed = ", ".join(name if count is None else f"{name} ({count})" for name, count in counts.items())
            raise UserError(f"--{flag}-split {split}: no pairs there. Name a split of {request.dataset}: {listed}.")
    names = (name for name in VALIDATION_NAMES if name != request.train_split and counts.get(name, 0) != 0)
    return request.validation_split or next(names, None)


def assign_splits(found: FoundPairs, request: PairOptions) -> tuple[PairDataset, PairDataset, str]:
    """Pairs that train, pairs that validate, and what the description must add about the latter.

    A set without a validation split gets a seeded one, by the order of hashes: the same with every library version.

    Raises:
        UserError: a split that was named has no rows, or too few pairs to set some aside.
    """
    split = request.train_split
    chosen = validation_split_of({name: len(rows) for name, rows in found.splits.items()}, request)
    train: Sequence[int] = range(len(found.splits[split]))
    if chosen is None:
        if len(train) < 2:
            raise UserError(
                f"--dataset {request.dataset} has one pair only and no validation split; expected at least 2 pairs. "
                "Add pairs, or name a split with --validation-split."
            )
        count = min(max(1, round(len(train) * VALIDATION_FRACTION)), len(train) - 1)
        by_hash = sorted(train, key=lambda row: hashlib.sha256(f"{SPLIT_SEED}/{row}".encode()).digest())
        held_out: Sequence[int] = sorted(by_hash[:count])
        train = sorted(by_hash[count:])
        note = f"; no validation split: {count} set aside from {split}"
    else:
        held_out = range(len(found.splits[chosen]))
        note = f"; validation: split {chosen}" if request.validation_split or chosen == "test" else ""
    return (
        found.pairs(split, request.swap, train[: request.max_train_pairs], request.least_size),
        found.pairs(chosen or split, request.swap, held_out[: request.max_validation_pairs], request.least_size),
        note,
    )


# --- forms


def find_pairs(request: PairOptions) -> FoundPairs:
    """Tell the form by looking; every form that is to come gets its line here.

    Raises:
        UserError: no form fits.
    """
    root = Path(request.dataset).expanduser()
    if request.dataset == SYNTHETIC:
        return _render_synthetic(request)
    if request.rasters:
        _refuse_columns(request, "rasters have")
        pairs = list(zip(request.rasters[::2], request.rasters[1::2], strict=True))
        splits = window_rows(pairs, max(request.image_height_width), MADE_COLUMNS)
        folder = Path(os.path.commonpath([file.absolute().parent for file in request.rasters]))
        mark = fingerprint(folder, [file.absolute() for file in request.rasters])
        return FoundPairs("rasters", splits, MADE_COLUMNS, mark)
    if request.dataset_revision is not None and root.exists():
        raise UserError(f"--dataset-revision is for Hub data sets; {request.dataset} is on this machine. Leave it out.")
    if not request.dataset or not is_loose(root):
        return _find_table(root, request)
    has_table = _has_metadata(root)
    if not has_table and (found := _find_paired_folders(root, request)) is not None:
        return found
    files = {} if has_table else _side_by_side_files(root, request.train_split)
    if request.train_split not in files and any(file.suffix.lower() in BUILDERS for file in root.rglob("*")):
        return _find_table(root, request)
    if not files:
        raise UserError(f"--dataset {request.dataset}: {contents(root)}, but no pairs. {FORMS_THAT_WORK}")
    _refuse_columns(request, f"{request.dataset} holds side-by-side images with")
    folders = {file.parent for own in files.values() for file in own}
    ignored = ignored_beside({root, *folders}, [*sum(files.values(), []), *folders])
    return found_files("side by side", root, files, ignored)


def find_images(request: DatasetOptions) -> FoundPairs:
    """The images of `source_column` (None: the only one), which stand by themselves: in a table, a Hub data set, or at
    any depth of a folder (whose column is `image`; splits are its folders `train`, `val`, …, else all is `train`).

    Raises:
        UserError: nothing there, or no such column.
    """
    root = Path(request.dataset).expanduser()
    if not is_loose(root) or _has_metadata(root) or any(file.suffix.lower() in TABLES for file in root.rglob("*")):
        return _find_table(root, request, image_column)
    below = {name: images_in(root / name, deep=True) for name in ("train", *VALIDATION_NAMES) if (root / name).is_dir()}
    files = {name: images for name, images in below.items() if images} or {"train": images_in(root, deep=True)}
    if not any(files.values()):
        return _find_table(root, request, image_column)
    if request.source_column not in (None, IMAGE_COLUMN):
        raise UserError(f"--source-column {request.source_column}: the images of a folder are column {IMAGE_COLUMN}.")
    return found_files("one column", root, files)


def found_files(form: str, root: Path, files: Mapping[str, Sequence[Path]], ignored: str = "") -> FoundPairs:
    """Make a row of each file, in the one column of its split."""
    splits = {split: _rows(root, (IMAGE_COLUMN,), [([file], None) for file in own]) for split, own in files.items()}
    used = [file for own in files.values() for file in own]
    return FoundPairs(form, splits, (IMAGE_COLUMN,), fingerprint(root, used), ignored=ignored)


def _render_synthetic(request: PairOptions) -> FoundPairs:
    """Rendered here and now, so that no cache can hide a change of the renderer; 400 + 40 pairs."""
    _refuse_columns(request, "the synthetic pairs have")
    limits = {"train": request.max_train_pairs, "validation": request.max_validation_pairs}
    features = Features({"label": ImageFeature(decode=False), "photo": ImageFeature(decode=False)})
    splits = {}
    for split, numbers in SYNTHETIC_SPLITS.items():
        columns: dict[str, list[Any]] = {name: [] for name in features}
        for number in numbers[: limits[split]]:
            images = render_pair(number, size=request.image_height_width, seed=0)
            for name, image in zip(features, images, strict=True):
                buffer = BytesIO()
                image.save(buffer, format="PNG", compress_level=1)
                columns[name].append({"bytes": buffer.getvalue(), "path": None})
        splits[split] = Dataset.from_dict(columns, features=features)
    sample = hashlib.sha256(splits["train"][0]["photo"]["bytes"]).hexdigest()
    names = {color: name for name, color in CMP_CLASSES.items()}
    return FoundPairs("synthetic", splits, ("label", "photo"), f"synthetic-{sample[:16]}", names)


def _refuse_columns(request: PairOptions, whose: str) -> None:
    if request.source_column is not None:
        raise UserError(f"--source-column is for data with named columns; {whose} none to choose. Leave it out.")


# --- image files


def is_loose(path: Path) -> bool:
    """A folder that `datasets` has not saved itself."""
    return path.is_dir() and not (path / "dataset_dict.json").is_file() and not (path / "state.json").is_file()


def _has_metadata(root: Path) -> bool:
    """An image folder that `datasets` reads: its table names the files."""
    return any(root.glob("metadata.*")) or any(root.glob("*/metadata.*"))


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """The key that files are ordered by: 2 before 10."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def images_in(folder: Path, *, deep: bool = False) -> list[Path]:
    """Image files in a folder (`deep`: at any depth of it), in natural order; nothing hidden, no results."""
    entries = folder.rglob("*") if deep else folder.iterdir()
    inside = {entry: entry.relative_to(folder).parts for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES}
    seen = [
        entry
        for entry, parts in inside.items()
        if not any(part.startswith(".") for part in parts) and RESULT_MARK not in entry.name and entry.is_file()
    ]
    return sorted(seen, key=lambda entry: [natural(part) for part in inside[entry]])


def find_inputs(inputs: Sequence[str]) -> dict[Path, Path]:
    """Image files, each with the name of its result inside the output folder.

    Args:
        inputs: files, folders (searched to the bottom, their structure is kept) and glob patterns (`**` goes down).

    Raises:
        UserError: nothing found.
    """
    if not inputs:
        raise UserError("No images were named: give files, folders or patterns.")
    found: dict[Path, tuple[Path, Path]] = {}
    for text in inputs:
        path = Path(text).expanduser()
        if path.is_dir():
            files = {file: file.relative_to(path) for file in images_in(path, deep=True)}
            wanted = f"with images ({', '.join(sorted(IMAGE_SUFFIXES))})"
        elif glob.has_magic(text) and not path.exists():
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            files = {match: Path(match.name) for match in matches if match.is_file()}
            wanted = "that files match"
        else:
            files, wanted = {path: Path(path.name)} if path.is_file() else {}, "that exists"
        if not files:
            raise UserError(f"{text}: expected a file, a folder or a pattern {wanted}.")
        found |= {file.resolve(): (file, name) for file, name in files.items()}
    return dict(found.values())


def ignored_beside(folders: Iterable[Path], used: Iterable[Path]) -> str:
    """Count what lies in folders and is not used, in words ("2 .txt, 1 folder, 3 broken links"; "" for nothing).

    Hidden files are not spoken of.
    """
    known = set(used)
    kinds: Counter[str] = Counter()
    for entry in (entry for folder in folders for entry in folder.iterdir()):
        if entry not in known and not entry.name.startswith("."):
            file = (entry.suffix.lower() or "file") if entry.exists() else "broken link"
            kinds["folder" if entry.is_dir() else file] += 1
    return ", ".join(
        f"{count} {kind}" if kind.startswith(".") else counted(count, kind) for kind, count in kinds.most_common()
    )


def fingerprint(root: Path, files: Iterable[Path] | None = None) -> str:
    """Hash over the names inside `root` and the sizes of its files (all that are not hidden, or those given)."""
    digest = hashlib.sha256()
    for file in sorted(files or root.rglob("*")):
        name = _name(root, file)
        if file.is_file() and not any(part.startswith(".") for part in Path(name).parts):
            digest.update(f"{name}\0{file.stat().st_size}\0".encode())
    return f"files-{digest.hexdigest()[:16]}"


def contents(root: Path) -> str:
    """Describe a folder without pairs, for the error."""
    suffixes = Counter(file.suffix or "no suffix" for file in islice(root.rglob("*"), 10_000) if file.is_file())
    if not suffixes:
        return "an empty folder"
    below = sorted(folder.parent for folder in root.glob("*/train") if folder.is_dir())
    hint = f" (did you mean --dataset {below[0]}?)" if below else ""
    return "a folder of " + ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5)) + hint


def _side_by_side_files(root: Path, train_split: str) -> dict[str, list[Path]]:
    """Split → image files of a folder: `train/`, `val/`, …, else the images in the folder itself as train."""
    subfolders = [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    splits = {folder.name: files for folder in sorted(subfolders) if (files := images_in(folder))}
    if train_split not in splits and (flat := images_in(root)):
        splits = {name: files for name, files in splits.items() if name in VALIDATION_NAMES} | {"train": flat}
    return splits


def _find_paired_folders(root: Path, request: PairOptions) -> FoundPairs | None:
    """Folders of A and B: those named by the options, else the first that are known; names fit in any case."""
    wanted = dict.fromkeys([request.train_split, *filter(None, [request.validation_split]), *VALIDATION_NAMES])
    first = sorted(path for path in root.iterdir() if path.is_dir())
    second = [path for folder in first for path in sorted(folder.iterdir()) if path.is_dir()]
    folders = {_name(root, path).lower(): path for path in (*first, *second)}
    for sides in KNOWN_COLUMNS if request.named_columns is None else (request.named_columns,):
        for layout in LAYOUTS:
            found: dict[str, list[Path]] = {}
            for split in wanted if "{s}" in layout[0] else ["train"]:
                keys = (side.format(a=sides[0], b=sides[1], s=split).lower() for side in layout)
                both = [folders[key] for key in keys if key in folders and images_in(folders[key])]
                if len(both) == 2:
                    found[split] = both
            if not found:
                continue
            splits = {split: _paired_rows(root, sides, both) for split, both in found.items()}
            places = sum(found.values(), [])
            files = [file for folder in places for file in images_in(folder)]
            ignored = ignored_beside(places, files)
            return FoundPairs("paired folders", splits, sides, fingerprint(root, files), ignored=ignored)
    return None


FileRow = tuple[Sequence[Path | None], str | None]  # files, one a column (None: missing), and why they are no pair


def _paired_rows(root: Path, sides: tuple[str, str], folders: Sequence[Path]) -> Dataset:
    """Files of two folders that have the same name but for the suffix, in columns `sides`; see `_rows`."""
    groups: dict[str, tuple[list[Path], list[Path]]] = {}
    for side, folder in enumerate(folders):
        for file in images_in(folder):
            groups.setdefault(file.stem, ([], []))[side].append(file)
    rows: list[FileRow] = []
    for first, second in groups.values():
        if [file.name for file in first] == [file.name for file in second] or len(first) == len(second) == 1:
            rows += [(pair, None) for pair in zip(first, second, strict=True)]
        elif not first or not second:
            for file in first or second:
                missing = _name(root, folders[1] if first else folders[0])
                fault = f"{_name(root, file)} has no partner: no file of its name, whatever the suffix, in {missing}."
                rows.append(((file, None) if first else (None, file), fault))
        else:
            names = [" and ".join(_name(root, file) for file in files) for files in (first, second)]
            verb = {1: "would pair", 2: "would both pair"}.get(len(first), "would all pair")
            fault = f"{names[0]} {verb} with {names[1]}: keep one on each side, or give the others names of their own."
            rows.append(((first[0], second[0]), fault))
    return _rows(root, sides, sorted(rows, key=lambda row: natural(next(file.name for file in row[0] if file))))


def _rows(root: Path, columns: tuple[str, ...], rows: Sequence[FileRow]) -> Dataset:
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


def _find_table(path: Path, request: DatasetOptions, choose: ChooseColumns | None = None) -> FoundPairs:
    """Open a set that `datasets` reads: on the Hub, a single file, one it saved itself, else a folder."""
    if not request.dataset or not path.exists():
        loaded, identity = open_on_hub(request)
    else:
        builder = BUILDERS.get(path.suffix.lower())
        if not path.is_dir() and builder is None:
            known = ", ".join(BUILDERS)
            raise UserError(f"--dataset {request.dataset} is a single file, but none of {known}. {FORMS_THAT_WORK}")
        try:
            if not path.is_dir():
                loaded = datasets.load_dataset(builder, data_files=str(path))
            else:
                loaded = (datasets.load_dataset if is_loose(path) else datasets.load_from_disk)(str(path))
        except Exception as error:
            reason = f"could not be read by `datasets` ({in_one_line(error)})"
            raise UserError(f"--dataset {request.dataset} {reason}. {FORMS_THAT_WORK}") from error
        identity = fingerprint(path) if path.is_dir() else fingerprint(path.parent, [path])
    splits: dict[str, Dataset] = {"train": loaded} if isinstance(loaded, Dataset) else dict(loaded)
    if not splits:
        raise UserError(f"--dataset {request.dataset} has no splits. {FORMS_THAT_WORK}")
    columns = (choose or choose_columns)(splits.get("train", next(iter(splits.values()))).features, request)
    form = "two columns" if len(columns) == 2 else "side by side"
    maker = recorded_maker(request, columns, identity)
    return FoundPairs(form, undecoded(splits, columns, request), columns, identity, maker=maker)


def recorded_maker(request: DatasetOptions, columns: tuple[str, ...], commit: str) -> MakerOptions | None:
    """How column `source` of a set was made from column `target`; None: it was not, as far as the set says.

    Args:
        request: names the set.
        columns: that were chosen in it.
        commit: of a set on the Hub.

    Raises:
        UserError: `source_maker.json` is not as `data make` writes it.
    """
    path = Path(request.dataset).expanduser() / MAKER_NAME
    if columns != MADE_COLUMNS:
        return None
    if not path.parent.exists():
        try:
            path = Path(hf_hub_download(request.dataset, MAKER_NAME, repo_type="dataset", revision=commit))
        except EntryNotFoundError:  # also where the Hub is out of reach and an earlier download had no such file
            return None
    if not path.is_file():
        return None
    try:
        return MakerOptions(**read_object(path)["maker"])
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{path} is not as `data make` writes it ({error}): make or fetch the pairs again.") from error


def holds_images(feature: Any) -> bool:
    """An image column, or bytes as libraries other than `datasets` write them."""
    if isinstance(feature, dict):
        return "bytes" in feature and holds_images(feature["bytes"])
    return isinstance(feature, ImageFeature) or (isinstance(feature, Value) and feature.dtype.endswith("binary"))


def undecoded(splits: Mapping[str, Any], columns: Sequence[str], request: DatasetOptions) -> dict[str, Any]:
    """Select columns of each split, map-style or streamed, whose images come as `{"bytes", "path"}` or None.

    Raises:
        UserError: a split lacks one.
    """
    found = {}
    for split, rows in splits.items():
        if absent := [column for column in columns if column not in rows.column_names]:
            raise UserError(
                f"--dataset {request.dataset}: split {split} has no column {' or '.join(absent)} "
                f"(columns: {', '.join(rows.column_names)}). All splits need the same."
            )
        rows = rows.with_format(None).select_columns(list(columns))
        for column in columns:
            rows = rows.cast_column(column, ImageFeature(decode=False))
        found[split] = rows
    return found


def image_column(features: Features, request: DatasetOptions) -> tuple[str, ...]:
    """The column of images asked for, else the only one. Raises `UserError` where there are none or several."""
    images = [name for name, feature in features.items() if holds_images(feature)]
    if request.source_column is None and len(images) != 1:
        listing = f"{counted(len(images), 'image column')} ({', '.join(images) or ', '.join(features)})"
        raise UserError(f"{request.dataset} has {listing}: say which holds the images with --source-column NAME.")
    return tuple(images) if request.source_column is None else choose_columns(features, request)


def choose_columns(features: Features, request: DatasetOptions) -> tuple[str, ...]:
    """The columns asked for, else A and B of the first known pair of names; or the one image column there is.

    Raises:
        UserError: lists the columns.
    """
    images = [name for name, feature in features.items() if holds_images(feature)]
    listing = f"columns: {', '.join(features)}; with images: {', '.join(images) or 'none'}"
    named = {"source": request.source_column, "target": request.target_column}
    for side, column in named.items():
        if column is not None and column not in images:
            raise UserError(f"--{side}-column {column}: {request.dataset} has no such image column ({listing}).")
    if request.source_column is not None:
        return tuple(filter(None, named.values()))
    plain = {_plain(name): name for name in images}
    for pair in KNOWN_COLUMNS:
        a, b = (plain.get(_plain(name)) for name in pair)
        if a is not None and b is not None:
            return a, b
    if len(images) == 1:
        return (images[0],)
    advice = "Say which with --source-column NAME --target-column NAME." if len(images) > 1 else FORMS_THAT_WORK
    raise UserError(f"--dataset {request.dataset} has no two image columns of known names ({listing}). {advice}")


def _plain(column: str) -> str:
    """A column's name without case, "_", "-" and the suffix that WebDataset leaves ("source.png")."""
    stem, dot, suffix = column.lower().rpartition(".")
    return re.sub("[_-]", "", stem if stem and dot + suffix in IMAGE_SUFFIXES else column.lower())


# --- the Hub


def open_on_hub(
    request: DatasetOptions, load: Callable[..., Any] | None = None, advice: str = FORMS_THAT_WORK
) -> tuple[Any, str]:
    """Load every split of the data set (user/name) that `request` names.

    Args:
        request: names it, and perhaps a revision.
        load: called with the name and `revision`, a commit; None: `datasets.load_dataset`, the only one that finds
            earlier downloads.
        advice: what works instead, the end of an error's text.

    Returns:
        What `load` returns, and the commit.

    Raises:
        UserError: no such id, private or gated, no such revision, or neither network nor an earlier download.
    """
    name, revision = request.dataset, request.dataset_revision
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
        absent = f"{absent} that could be reached ({in_one_line(error)})"
        if load is not None:
            raise UserError(f"{absent}. {advice}") from error
        offline = isinstance(error, OfflineModeIsEnabled)
        way_out = (
            "Unset HF_HUB_OFFLINE to look there."
            if offline
            else ("Check the network and the spelling. Without a network, HF_HUB_OFFLINE=1 uses earlier downloads.")
        )
        return _open_cached(name, revision, f"{absent}, and no earlier download of it is cached. {way_out} {advice}")
    try:
        return (load or datasets.load_dataset)(name, revision=commit), str(commit)
    except Exception as error:
        raise UserError(f"--dataset {name}: its download failed ({in_one_line(error)}). {advice}") from error


def _open_cached(name: str, revision: str | None, absent: str) -> tuple[Any, str]:
    """An earlier download and its commit; `absent` is what is said where there is none."""
    online, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True  # straight to the cache
    try:
        builder = datasets.load_dataset_builder(name)
        loaded = builder.as_dataset()
    except Exception as error:
        raise UserError(absent) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = online
    if revision not in (None, builder.hash):
        raise UserError(
            f"--dataset-revision {revision}: the Hub is out of reach and the earlier download of {name} is commit "
            f"{builder.hash}. Connect, or give that commit."
        )
    return loaded, str(builder.hash)


def in_one_line(error: Exception) -> str:
    """An exception's class and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
