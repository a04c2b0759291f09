"""Pairs from wherever people keep them: the one place that knows forms and column names.

`find_pairs` tells the form by looking, and returns it as a Hugging Face `datasets.Dataset` per split with either one
image column (A and B side by side) or two (A, then B), undecoded. What follows is shared by all forms: splits
(`splits.py`), the pass that finds bad pairs and tells how pixels are stored (`examine.py`), and decoding one record
(`records.py`, which a streamed record goes through as well).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features
from datasets import Image as ImageFeature

from pix2pix_hub.config import DatasetOptions, PairOptions
from pix2pix_hub.data.examine import Findings, examine, size_text
from pix2pix_hub.data.file_rows import IMAGE_COLUMN, image_rows, paired_rows
from pix2pix_hub.data.files import (
    IMAGE_SUFFIXES,
    contents,
    fingerprint,
    images_below,
    images_in,
    left_aside,
    side_folders,
)
from pix2pix_hub.data.pair_dataset import PairDataset
from pix2pix_hub.data.records import RecordDecoder
from pix2pix_hub.data.splits import VALIDATION_NAMES, assign_splits
from pix2pix_hub.data.tables import BUILDERS, TABLES, holds_images, is_loose, open_table, undecoded
from pix2pix_hub.images import PixelFormat
from pix2pix_hub.synthetic import CMP_CLASSES, render_pair
from pix2pix_hub.util import UserError, counted

__all__ = ["FoundPairs", "PairDataset", "PairSplits", "find_pairs", "load_pairs"]
SYNTHETIC = "synthetic"
SYNTHETIC_SPLITS = {"train": range(0, 400), "validation": range(10_000, 10_040)}
# Columns (or folders) A and B as data sets name them, compared without case, "_" and "-"; the first that fits is taken.
KNOWN_COLUMNS = (
    ("source", "target"), ("source_image", "target_image"), ("imageA", "imageB"), ("A", "B"), ("image_1", "image_2"),
    ("input", "output"), ("input", "target"), ("input_image", "output_image"), ("input_image", "target_image"),
    ("input_image", "edited_image"), ("original_image", "edited_image"), ("conditioning_image", "image"),
    ("control_image", "image"), ("before", "after"), ("sketch", "photo"), ("edges", "photo"), ("label", "photo"),
)  # fmt: skip
FORMS_THAT_WORK = (
    "Forms that work: a folder of images that show A (left half) and B (right half) side by side, with train/ and "
    "val/ or without; folders A/ and B/ whose files pair by name (also train/A train/B, A/train B/train, trainA "
    "trainB); a folder made by `save_to_disk`, Parquet, Arrow or WebDataset files, an image folder with "
    "metadata.jsonl, or a Hub data set (user/name), each with one column of side-by-side images or two image "
    f"columns; or `--dataset {SYNTHETIC}`."
)


@dataclass(frozen=True)
class FoundPairs:
    """What a form hands on: undecoded rows."""

    form: str  # "synthetic", "side by side", "paired folders" or "two columns"
    splits: dict[str, Dataset]  # columns `columns` as {"bytes", "path"} or None; `name` where pairs are files
    columns: tuple[str, ...]  # one: A and B side by side; two: A, B
    fingerprint: str  # identifies data set and revision: the Hub's commit, else a hash over names and sizes
    class_names: dict[tuple[int, int, int], str] = field(default_factory=dict)  # by colour, where they are known
    left_aside: str = ""  # what lies beside the images and is none of them, in words


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

    @property
    def formats(self) -> dict[str, PixelFormat]:
        """How the pixels of each side are stored: "source", "target"."""
        return self.train.formats


def load_pairs(request: PairOptions, *, check: bool = True, findings: Findings | None = None) -> PairSplits:
    """Find out which form a data set has, and open it.

    Args:
        request: which pairs. The synthetic set is rendered at `image_size`, others stay as stored.
        check: decode every pair once (in threads) and list the bad ones, before anything is trained. Without it the
            first few pairs tell how pixels are stored.
        findings: of an earlier call with the same arguments, on this process or another: nothing is decoded.

    Raises:
        UserError: nothing there, a form or columns unknown, bad images, too few pairs. Says what to type next.
    """
    found = find_pairs(request)
    train_part, validation_part, note = assign_splits(found.splits, request)
    decoder = RecordDecoder(found.columns, request.swap)
    parts = [
        PairDataset(found.splits[part.split], part.indices, decoder, part.split)
        for part in (train_part, validation_part)
    ]
    if findings is None:  # what was just rendered need not be looked at
        look_at_all = check and found.form != SYNTHETIC
        skip = request.on_bad_pair == "skip"
        findings = examine(parts, request, everything=look_at_all, skip=skip, names=found.class_names)
    if found.form == SYNTHETIC:
        findings = replace(findings, sizes=size_text([request.image_height_width]))
    train, validation = (findings.applied_to(part) for part in parts)
    if not len(train) or not len(validation):
        raise UserError(
            f"--dataset {request.dataset}: no sound {'validation' if len(train) else 'training'} pair is left."
        )
    aside = f"; left aside: {found.left_aside}" if found.left_aside else ""
    description = _describe(found, request, findings, len(train), len(validation)) + note + aside
    return PairSplits(train, validation, description, found.form, found.fingerprint, request.dataset, findings)


def _describe(found: FoundPairs, request: PairOptions, findings: Findings, train: int, validation: int) -> str:
    source, target = RecordDecoder(found.columns, request.swap).sides
    height, width = request.image_height_width
    pixels = [findings.source.describe(), findings.target.describe()]
    left_out = f"; {counted(len(findings.faults), 'bad pair')} left out" if findings.faults else ""
    return (
        f"{train} training and {counted(validation, 'validation pair')}, {found.form}, {request.direction}: "
        f"{source} → {target}, {findings.sizes} → {height}x{width}, {' → '.join(dict.fromkeys(pixels))}{left_out}"
    )


# ---------------------------------------------------------------------------------------------------------- forms


def find_pairs(request: PairOptions) -> FoundPairs:
    """Tell the form by looking; every form that is to come gets its line here.

    Raises:
        UserError: no form fits.
    """
    path = Path(request.dataset).expanduser()
    if request.dataset == SYNTHETIC:
        return _find_synthetic(request)
    if request.dataset_revision is not None and path.exists():
        raise UserError(f"--dataset-revision is for Hub data sets; {request.dataset} is on this machine. Leave it out.")
    return _find_in_folder(path, request) if request.dataset and is_loose(path) else _find_table(path, request)


def find_images(request: DatasetOptions) -> FoundPairs:
    """The images of `source_column`, which stand by themselves: in a table, a Hub data set, or a folder of images
    (whose column is `image`).

    Raises:
        UserError: nothing there, or no such column.
    """
    path, column = Path(request.dataset).expanduser(), str(request.source_column)
    if is_loose(path) and (found := _find_single_images(path)) is not None:
        if column != IMAGE_COLUMN:
            raise UserError(f"--source-column {column}: the images of a folder are column {IMAGE_COLUMN}.")
        return found
    loaded, identity = open_table(path, request, FORMS_THAT_WORK)
    splits = _splits_of(loaded)
    for split, rows in splits.items():
        images = [name for name, feature in rows.features.items() if holds_images(feature)]
        if column not in images:
            listing = f"columns: {', '.join(rows.features)}; with images: {', '.join(images) or 'none'}"
            raise UserError(f"--source-column {column}: split {split} has no such image column ({listing}).")
    columns = {name: undecoded(rows, (column,), name, request) for name, rows in splits.items()}
    return FoundPairs("one column", columns, (column,), identity)


def _find_single_images(root: Path) -> FoundPairs | None:
    """Images at any depth of a folder without tables; splits are its folders `train`, `val`, …, else all is `train`."""
    if _has_metadata(root) or any(file.suffix.lower() in TABLES for file in root.rglob("*")):
        return None
    below = {name: images_below(root / name) for name in ("train", *VALIDATION_NAMES) if (root / name).is_dir()}
    files = {name: images for name, images in below.items() if images} or {"train": images_below(root)}
    used = sum(files.values(), [])
    splits = {split: image_rows(root, images) for split, images in files.items()}
    return FoundPairs("one column", splits, (IMAGE_COLUMN,), fingerprint(root, used)) if used else None


def _has_metadata(root: Path) -> bool:
    """An image folder that `datasets` reads: its table names the files."""
    return any(root.glob("metadata.*")) or any(root.glob("*/metadata.*"))


def _find_in_folder(path: Path, request: PairOptions) -> FoundPairs:
    has_metadata = _has_metadata(path)
    if not has_metadata and (found := _find_paired_folders(path, request)) is not None:
        return found
    files = {} if has_metadata else _side_by_side_files(path, request)
    if request.train_split in files:
        return _find_side_by_side(path, files, request)
    if any(file.suffix.lower() in BUILDERS for file in path.rglob("*")):
        return _find_table(path, request)
    if files:
        return _find_side_by_side(path, files, request)
    raise UserError(f"--dataset {request.dataset}: {contents(path)}, but no pairs. {FORMS_THAT_WORK}")


def _find_synthetic(request: PairOptions) -> FoundPairs:
    """Rendered here and now, so that no cache can hide a change of the renderer; 400 + 40 pairs."""
    _refuse_columns(request, "the synthetic pairs have")
    limits = {"train": request.max_train_pairs, "validation": request.max_validation_pairs}
    features = Features({"label": ImageFeature(decode=False), "photo": ImageFeature(decode=False)})
    splits = {}
    for split, numbers in SYNTHETIC_SPLITS.items():
        pairs = [render_pair(number, size=request.image_height_width, seed=0) for number in numbers[: limits[split]]]
        columns = {name: [{"bytes": _png(pair[k]), "path": None} for pair in pairs] for k, name in enumerate(features)}
        splits[split] = Dataset.from_dict(columns, features=features)
    sample = hashlib.sha256(splits["train"][0]["photo"]["bytes"]).hexdigest()
    names = {color: name for name, color in CMP_CLASSES.items()}
    return FoundPairs("synthetic", splits, ("label", "photo"), f"synthetic-{sample[:16]}", names)


def _png(image: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


# --- image files


def _find_paired_folders(root: Path, request: PairOptions) -> FoundPairs | None:
    """Folders of A and B: those named by the options, else the first that are known."""
    wanted = dict.fromkeys([request.train_split, *filter(None, [request.validation_split]), *VALIDATION_NAMES])
    for sides in KNOWN_COLUMNS if request.named_columns is None else (request.named_columns,):
        if folders := side_folders(root, sides, wanted):
            splits = {split: paired_rows(root, sides, both) for split, both in folders.items()}
            files = [file for both in folders.values() for folder in both for file in images_in(folder)]
            aside = left_aside((folder for both in folders.values() for folder in both), files)
            return FoundPairs("paired folders", splits, sides, fingerprint(root, files), left_aside=aside)
    return None


def _side_by_side_files(root: Path, request: PairOptions) -> dict[str, list[Path]]:
    """Split → image files of a folder: `train/`, `val/`, …, else the images in the folder itself as train."""
    subfolders = [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    splits = {folder.name: files for folder in sorted(subfolders) if (files := images_in(folder))}
    if request.train_split not in splits and (flat := images_in(root)):
        splits = {name: files for name, files in splits.items() if name in VALIDATION_NAMES} | {"train": flat}
    return splits


def _find_side_by_side(root: Path, files: dict[str, list[Path]], request: PairOptions) -> FoundPairs:
    _refuse_columns(request, f"{request.dataset} holds side-by-side images with")
    splits = {split: image_rows(root, paths) for split, paths in files.items()}
    used = sum(files.values(), [])
    folders = {file.parent for file in used}
    aside = left_aside({root, *folders}, [*used, *folders])
    return FoundPairs("side by side", splits, (IMAGE_COLUMN,), fingerprint(root, used), left_aside=aside)


# --- tables


def _find_table(path: Path, request: PairOptions) -> FoundPairs:
    return _from_table(*open_table(path, request, FORMS_THAT_WORK), request)


def _from_table(loaded: Dataset | DatasetDict, fingerprint: str, request: PairOptions) -> FoundPairs:
    splits = _splits_of(loaded)
    if not splits:
        raise UserError(f"--dataset {request.dataset} has no splits. {FORMS_THAT_WORK}")
    columns = choose_columns(splits.get(request.train_split, next(iter(splits.values()))).features, request)
    form = "two columns" if len(columns) == 2 else "side by side"
    rows = {name: undecoded(rows, columns, name, request) for name, rows in splits.items()}
    return FoundPairs(form, rows, columns, fingerprint)


def _splits_of(loaded: Dataset | DatasetDict) -> dict[str, Dataset]:
    return {"train": loaded} if isinstance(loaded, Dataset) else dict(loaded)


def choose_columns(features: Features, request: PairOptions) -> tuple[str, ...]:
    """The columns A and B: those asked for, else the first known pair of names; or the one image column there is.

    Raises:
        UserError: lists the columns.
    """
    images = [name for name, feature in features.items() if holds_images(feature)]
    listing = f"columns: {', '.join(features)}; with images: {', '.join(images) or 'none'}"
    if request.named_columns is not None:
        for flag, column in zip(("source", "target"), request.named_columns, strict=True):
            if column not in images:
                raise UserError(f"--{flag}-column {column}: {request.dataset} has no such image column ({listing}).")
        return request.named_columns
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


def _refuse_columns(request: PairOptions, whose: str) -> None:
    if request.source_column is not None:
        raise UserError(f"--source-column is for data with named columns; {whose} none to choose. Leave it out.")
