"""Pairs from wherever people keep them: the one place that knows forms and column names.

A form is a function `_Request -> _Found` in `_find`. What it finds is a Hugging Face `datasets.Dataset` per split
with either one image column (A and B side by side) or two (A, then B), undecoded; everything after that (splits,
direction, checks, description) is shared by all forms.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature

from pix2pix_hub.data.files import contents, fingerprint, images_in
from pix2pix_hub.data.hub_source import describe, open_on_hub
from pix2pix_hub.data.pair_dataset import PairDataset, examine, size_text, stored_size
from pix2pix_hub.data.synthetic import render_pair
from pix2pix_hub.errors import UserError

__all__ = ["PairDataset", "PairSplits", "load_pairs"]
SYNTHETIC = "synthetic"
SYNTHETIC_SPLITS = {"train": range(0, 400), "validation": range(10_000, 10_040)}
VALIDATION_NAMES = ("validation", "val", "valid", "dev", "test")
BUILDERS = {  # suffix of a single file → the `datasets` builder that reads it
    ".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tar": "webdataset",
}  # fmt: skip
# Columns A and B as data sets name them, compared without case, "_" and "-"; the first that fits is taken.
KNOWN_COLUMNS = (
    ("source", "target"), ("source_image", "target_image"), ("imageA", "imageB"), ("A", "B"), ("image_1", "image_2"),
    ("input", "output"), ("input", "target"), ("input_image", "output_image"), ("input_image", "target_image"),
    ("input_image", "edited_image"), ("original_image", "edited_image"), ("conditioning_image", "image"),
    ("control_image", "image"), ("before", "after"), ("sketch", "photo"), ("edges", "photo"), ("label", "photo"),
)  # fmt: skip
UNPAIRED_LAYOUTS = ("A/train+B/train", "A+B", "train/A+train/B", "trainA+trainB", "train_A+train_B")
FORMS_THAT_WORK = (
    "Forms that work: a folder of images that show A (left half) and B (right half) side by side, with train/ and "
    "val/ or without; a folder made by `save_to_disk`, a Parquet file or folder, or a Hub data set (user/name), each "
    f"with two image columns; or `--dataset {SYNTHETIC}`."
)
SPLIT_SEED = 0


@dataclass(frozen=True)
class PairSplits:
    """The pairs to train on and those to validate on."""

    train: PairDataset
    validation: PairDataset
    description: str  # one line for people: counts, form, direction, stored size → size asked for (height x width)
    form: str  # "synthetic", "side by side" or "two columns"
    fingerprint: str  # identifies data set and revision: the Hub's commit, else a hash over names and sizes
    dataset: str


@dataclass(frozen=True)
class _Request:
    """The arguments of `load_pairs`."""

    dataset: str
    direction: str
    image_size: tuple[int, int]
    source_column: str | None
    target_column: str | None
    revision: str | None
    train_split: str
    validation_split: str | None
    validation_fraction: float
    max_train_pairs: int | None
    max_validation_pairs: int | None
    check: bool


@dataclass(frozen=True)
class _Found:
    """What a form hands on."""

    form: str
    splits: dict[str, Dataset]
    columns: tuple[str, ...]
    fingerprint: str


def load_pairs(
    dataset: str,
    *,
    direction: str = "AtoB",
    image_size: tuple[int, int],
    source_column: str | None = None,
    target_column: str | None = None,
    revision: str | None = None,
    train_split: str = "train",
    validation_split: str | None = None,
    validation_fraction: float = 0.1,
    max_train_pairs: int | None = None,
    max_validation_pairs: int | None = None,
    check: bool = True,
) -> PairSplits:
    """Find out which form `dataset` has, and open it.

    Args:
        dataset: "synthetic", a folder, a file, or the id of a Hub data set.
        direction: "AtoB" or "BtoA"; A is the left half or the first column.
        image_size: height and width trained at (the synthetic set is rendered at it, others stay as stored).
        source_column, target_column: the columns A and B, where their names are not known ones.
        revision: branch, tag or commit of a Hub data set.
        train_split, validation_split: names of splits or subfolders; without a validation split, a seeded
            `validation_fraction` of the training pairs is set aside, the same on every rank and every resume.
        max_train_pairs, max_validation_pairs: use the first so many.
        check: decode every pair once (in threads) and list the bad ones, before anything is trained.

    Raises:
        UserError: nothing there, a form or columns unknown, bad images, too few pairs. Says what to type next.
    """
    request = _Request(**locals())
    _check_request(request)
    found = _find(request)
    train, validation, note = _assign_splits(found, request)
    stored, wanted = _stored_sizes(found, train, validation, request), size_text([image_size])
    layout = ("left half", "right half") if len(found.columns) == 1 else found.columns
    source, target = reversed(layout) if train.swap else layout
    description = (
        f"{len(train)} training and {len(validation)} validation pairs, {found.form}, {direction}: "
        f"{source} → {target}, {stored} → {wanted}{note}"
    )
    return PairSplits(train, validation, description, found.form, found.fingerprint, dataset)


def _stored_sizes(found: _Found, train: PairDataset, validation: PairDataset, request: _Request) -> str:
    """The sizes for the description; looking at all of them is also what finds bad images."""
    if found.form == SYNTHETIC:
        return size_text([request.image_size])  # just rendered
    if request.check:
        return size_text(examine([train, validation], request.dataset))
    return size_text([stored_size(train, 0)]) + " (the first)"


def _check_request(request: _Request) -> None:
    if request.direction not in ("AtoB", "BtoA"):
        raise UserError(f"--direction is {request.direction!r}; expected AtoB or BtoA.")
    if (request.source_column is None) != (request.target_column is None):
        raise UserError("Only one of --source-column and --target-column came; give both or neither.")
    if not 0.0 < request.validation_fraction < 1.0:
        raise UserError(f"--validation-fraction is {request.validation_fraction}; expected between 0 and 1.")
    for flag, count in (("train", request.max_train_pairs), ("validation", request.max_validation_pairs)):
        if count is not None and count < 1:
            raise UserError(f"--max-{flag}-pairs is {count}; expected 1 or more.")


# ---------------------------------------------------------------------------------------------------------- forms


def _find(request: _Request) -> _Found:
    """Tell the form by looking; every form that is to come gets its line here."""
    path = Path(request.dataset).expanduser()
    if request.dataset == SYNTHETIC:
        return _find_synthetic(request)
    if not request.dataset or not path.exists():
        return _find_on_hub(request)
    if request.revision is not None:
        raise UserError(f"--dataset-revision is for Hub data sets; {request.dataset} is on this machine. Leave it out.")
    if path.is_file():
        return _find_in_file(path, request)
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _two_columns(_read(request, lambda: datasets.load_from_disk(path)), fingerprint(path), request)
    _refuse_unpaired(path, request)
    files = _side_by_side_files(path, request)
    if request.train_split in files:
        return _find_side_by_side(path, files, request)
    if any(file.suffix.lower() in BUILDERS for file in path.rglob("*")):
        return _two_columns(_read(request, lambda: datasets.load_dataset(str(path))), fingerprint(path), request)
    if files:
        return _find_side_by_side(path, files, request)
    raise UserError(f"--dataset {request.dataset}: {contents(path)}, but no pairs. {FORMS_THAT_WORK}")


def _find_synthetic(request: _Request) -> _Found:
    """Rendered here and now, so that no cache can hide a change of the renderer; 400 + 40 pairs."""
    _refuse_columns(request, "the synthetic pairs have")
    limits = {"train": request.max_train_pairs, "validation": request.max_validation_pairs}
    features = Features({"label": ImageFeature(decode=False), "photo": ImageFeature(decode=False)})
    splits = {}
    for split, numbers in SYNTHETIC_SPLITS.items():
        pairs = [render_pair(number, size=request.image_size, seed=0) for number in numbers[: limits[split]]]
        columns = {name: [{"bytes": _png(pair[k]), "path": None} for pair in pairs] for k, name in enumerate(features)}
        splits[split] = Dataset.from_dict(columns, features=features)
    sample = hashlib.sha256(splits["train"][0]["photo"]["bytes"]).hexdigest()
    return _Found("synthetic", splits, ("label", "photo"), f"synthetic-{sample[:16]}")


def _png(image: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _side_by_side_files(root: Path, request: _Request) -> dict[str, list[Path]]:
    """Split → image files of a folder: `train/`, `val/`, …, else the images in the folder itself as train."""
    subfolders = [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    splits = {folder.name: files for folder in sorted(subfolders) if (files := images_in(folder))}
    if request.train_split not in splits and (flat := images_in(root)):
        splits = {name: files for name, files in splits.items() if name in VALIDATION_NAMES} | {"train": flat}
    has_metadata = any(root.glob("metadata.*")) or any(root.glob("*/metadata.*"))  # an imagefolder, for `datasets`
    return {} if has_metadata else splits


def _find_side_by_side(root: Path, files: dict[str, list[Path]], request: _Request) -> _Found:
    _refuse_columns(request, f"{request.dataset} holds side-by-side images with")
    features = Features({"image": ImageFeature(decode=False), "name": Value("string")})
    splits = {}
    for split, paths in files.items():
        names = [path.relative_to(root).as_posix() for path in paths]
        images = [{"bytes": None, "path": str(path.absolute())} for path in paths]
        splits[split] = Dataset.from_dict({"image": images, "name": names}, features=features)
    return _Found("side by side", splits, ("image",), fingerprint(root, list(chain(*files.values()))))


def _find_in_file(path: Path, request: _Request) -> _Found:
    if (builder := BUILDERS.get(path.suffix.lower())) is None:
        known = ", ".join(BUILDERS)
        raise UserError(f"--dataset {request.dataset} is a single file, but none of {known}. {FORMS_THAT_WORK}")
    loaded = _read(request, lambda: datasets.load_dataset(builder, data_files=str(path)))
    return _two_columns(loaded, fingerprint(path.parent, [path]), request)


def _find_on_hub(request: _Request) -> _Found:
    loaded, commit = open_on_hub(request.dataset, request.revision, FORMS_THAT_WORK)
    return _two_columns(loaded, commit, request)


def _read(request: _Request, load: Callable[[], Any]) -> Any:
    """Whatever goes wrong inside `datasets`, in words that name the flag."""
    try:
        return load()
    except Exception as error:
        raise UserError(
            f"--dataset {request.dataset} could not be read by `datasets` ({describe(error)}). {FORMS_THAT_WORK}"
        ) from error


def _two_columns(loaded: Dataset | DatasetDict, fingerprint: str, request: _Request) -> _Found:
    splits = {"train": loaded} if isinstance(loaded, Dataset) else dict(loaded)
    if not splits:
        raise UserError(f"--dataset {request.dataset} has no splits. {FORMS_THAT_WORK}")
    columns = choose_columns(splits.get(request.train_split, next(iter(splits.values()))).features, request)
    undecoded = {name: _undecoded(rows, columns, name, request) for name, rows in splits.items()}
    return _Found("two columns", undecoded, columns, fingerprint)


def choose_columns(features: Features, request: _Request) -> tuple[str, str]:
    """The columns A and B: those asked for, else the first known pair of names."""
    images = [name for name, feature in features.items() if _holds_images(feature)]
    listing = f"columns: {', '.join(features)}; with images: {', '.join(images) or 'none'}"
    if request.source_column is not None and request.target_column is not None:
        for flag, column in (("source", request.source_column), ("target", request.target_column)):
            if column not in images:
                raise UserError(f"--{flag}-column {column}: {request.dataset} has no such image column ({listing}).")
        return request.source_column, request.target_column
    plain = {re.sub("[_-]", "", name).lower(): name for name in images}
    for pair in KNOWN_COLUMNS:
        a, b = (plain.get(name.replace("_", "").lower()) for name in pair)
        if a is not None and b is not None:
            return a, b
    advice = "Say which with --source-column NAME --target-column NAME." if len(images) > 1 else FORMS_THAT_WORK
    raise UserError(f"--dataset {request.dataset} has no two image columns of known names ({listing}). {advice}")


def _holds_images(feature: Any) -> bool:
    """An image column, or bytes as libraries other than `datasets` write them."""
    if isinstance(feature, dict):
        return "bytes" in feature and _holds_images(feature["bytes"])
    return isinstance(feature, ImageFeature) or (isinstance(feature, Value) and feature.dtype.endswith("binary"))


def _undecoded(rows: Dataset, columns: Sequence[str], split: str, request: _Request) -> Dataset:
    if absent := [column for column in columns if column not in rows.column_names]:
        raise UserError(
            f"--dataset {request.dataset}: split {split} has no column {' or '.join(absent)} "
            f"(columns: {', '.join(rows.column_names)}). All splits need the same two."
        )
    rows = rows.with_format(None).select_columns(list(columns))
    for column in columns:
        rows = rows.cast_column(column, ImageFeature(decode=False))
    return rows


def _refuse_columns(request: _Request, whose: str) -> None:
    if request.source_column is not None:
        raise UserError(f"--source-column is for data with named columns; {whose} none to choose. Leave it out.")


def _refuse_unpaired(root: Path, request: _Request) -> None:
    for layout in UNPAIRED_LAYOUTS:
        if all((root / part).is_dir() for part in layout.split("+")):
            raise UserError(
                f"--dataset {request.dataset} keeps A and B in folders of their own ({layout.replace('+', ' and ')}), "
                f"which is not read yet. {FORMS_THAT_WORK}"
            )


# --------------------------------------------------------------------------------------------------------- splits


def _assign_splits(found: _Found, request: _Request) -> tuple[PairDataset, PairDataset, str]:
    """Training pairs, validation pairs, and what the description must add about the latter."""
    for flag, split in (("train", request.train_split), ("validation", request.validation_split)):
        if split is not None and not len(found.splits.get(split, ())):
            counts = ", ".join(f"{name} ({len(rows)})" for name, rows in found.splits.items())
            raise UserError(f"--{flag}-split {split}: no pairs there. Name a split of {request.dataset}: {counts}.")
    names = (name for name in VALIDATION_NAMES if name != request.train_split and len(found.splits.get(name, ())))
    chosen = request.validation_split or next(names, None)
    train: Sequence[int] = range(len(found.splits[request.train_split]))
    held_out: Sequence[int]
    if chosen is None:
        train, held_out = _set_aside(train, request)
        note = f"; no validation split: {len(held_out)} set aside from {request.train_split}"
        chosen = request.train_split
    else:
        held_out = range(len(found.splits[chosen]))
        note = f"; validation: split {chosen}" if request.validation_split or chosen == "test" else ""
    return (
        _pairs(found, request, request.train_split, train[: request.max_train_pairs]),
        _pairs(found, request, chosen, held_out[: request.max_validation_pairs]),
        note,
    )


def _pairs(found: _Found, request: _Request, split: str, indices: Sequence[int]) -> PairDataset:
    return PairDataset(found.splits[split], indices, found.columns, split, swap=request.direction == "BtoA")


def _set_aside(rows: Sequence[int], request: _Request) -> tuple[list[int], list[int]]:
    """Rows to train on and rows to validate on, by the order of their hashes: the same with every library version."""
    if len(rows) < 2:
        raise UserError(
            f"--dataset {request.dataset} has one pair only and no validation split; expected at least 2 pairs. "
            "Add pairs, or name a split with --validation-split."
        )
    count = min(max(1, round(len(rows) * request.validation_fraction)), len(rows) - 1)
    held_out = set(sorted(rows, key=lambda row: hashlib.sha256(f"{SPLIT_SEED}/{row}".encode()).digest())[:count])
    return [row for row in rows if row not in held_out], sorted(held_out)
