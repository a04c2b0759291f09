"""Pairs from wherever people keep them: the one place that knows forms, column names and splits.

`find_pairs` tells the form by looking, and returns it as a Hugging Face `datasets.Dataset` per split with either one
image column (A and B side by side) or two (A, then B), undecoded. `load_pairs` makes of it, and `open_stream` of shards
that are not downloaded, what is trained and what is validated on.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features
from datasets import Image as ImageFeature

from pix2pix_hub.config import DatasetOptions, PairOptions
from pix2pix_hub.data.cache import KeepWhileLooking
from pix2pix_hub.data.decode import FIRST_PAIRS, Findings, PairDataset, RecordDecoder, examine
from pix2pix_hub.data.sources import (
    BUILDERS,
    IMAGE_COLUMN,
    IMAGE_SUFFIXES,
    TABLES,
    contents,
    fingerprint,
    holds_images,
    image_rows,
    images_below,
    images_in,
    is_loose,
    left_aside,
    open_table,
    paired_rows,
    side_folders,
    undecoded,
)
from pix2pix_hub.data.stream import ShardPlaces, ShardRows, first_rows, open_shards, shard_lengths
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.synthetic import CMP_CLASSES, render_pair
from pix2pix_hub.util import UserError, counted

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
VALIDATION_NAMES = ("validation", "val", "valid", "dev", "test")
SPLIT_SEED = 0
VALIDATION_FRACTION = 0.1  # of the training pairs, where there is no validation split
STREAMED_VALIDATION_PAIRS = 256  # at most, where --max-validation-pairs does not say: they are held in memory


@dataclass(frozen=True)
class FoundPairs:
    """What a form hands on: undecoded rows."""

    form: str  # "synthetic", "side by side", "paired folders", "two columns" or "one column"
    splits: dict[str, Dataset]  # columns `columns` as {"bytes", "path"} or None; `name` where pairs are files
    columns: tuple[str, ...]  # one: A and B side by side; two: A, B
    fingerprint: str  # identifies data set and revision: the Hub's commit, else a hash over names and sizes
    class_names: dict[tuple[int, int, int], str] = field(default_factory=dict)  # by colour, where they are known
    left_aside: str = ""  # what lies beside the images and is none of them, in words

    def pairs(self, split: str, swap: bool, indices: Sequence[int] | None = None) -> PairDataset:
        """Rows of a split (None: all), for `examine` to look at."""
        rows = self.splits[split]
        decoder = RecordDecoder(self.columns, swap)
        return PairDataset(rows, range(len(rows)) if indices is None else indices, decoder, split)


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

    @property
    def formats(self) -> dict[str, PixelFormat]:
        """How the pixels of each side are stored: "source", "target"."""
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
                first = examine(parts, request, everything=False)
                keeper = keep([replace(part, decoder=first.decoder_of(part)) for part in parts])
        findings = examine(parts, request, everything=everything, names=found.class_names, keeper=keeper)
    train, validation = (findings.applied_to(part) for part in parts)
    if not len(train) or not len(validation):
        raise UserError(
            f"--dataset {request.dataset}: no sound {'validation' if len(train) else 'training'} pair is left."
        )
    if keeper is not None:
        keeper.finish([train, validation])
    pairs = f"{len(train)} training and {counted(len(validation), 'validation pair')}, {found.form}"
    skipped = f"; {counted(len(findings.faults), 'bad pair')} left out" if findings.faults else ""
    aside = f"; left aside: {found.left_aside}" if found.left_aside else ""
    description = _describe(pairs, request, train.decoder, findings.size_words) + skipped + note + aside
    identity = (found.form, found.fingerprint, request.dataset)
    return PairSplits(train, validation, description, *identity, findings, keeper=keeper)


def open_stream(
    request: PairOptions, block: int = 1000, *, lengths: Sequence[int] | None = None, findings: Findings | None = None
) -> PairSplits:
    """Open a data set without reading more than its validation pairs and the lengths of its shards.

    Args:
        request: of a folder or a Hub data set; what is streamed and bad is left to the loader.
        block: rows that are read, and held, at a time.
        lengths: of the shards, where somebody has counted them.
        findings: of the first pairs, from a process that has looked at them.

    Raises:
        UserError: nothing there, a form that is not streamed, columns or splits unknown, bad pairs, too few pairs.
    """
    dataset, split = request.dataset, request.train_split
    builder, streams, mark = open_shards(request)
    held_split = validation_split_of(dict.fromkeys(streams), request)
    columns = choose_columns(streams[split].features, request)
    streams = {name: undecoded(stream, columns, name, request) for name, stream in streams.items()}
    decoder = RecordDecoder(columns, request.swap)
    lengths = lengths or shard_lengths(builder, split, streams[split])
    count = request.max_validation_pairs or STREAMED_VALIDATION_PAIRS
    if held_split is None and request.max_validation_pairs is None:
        count = max(1, min(count, round(sum(lengths) * VALIDATION_FRACTION)))
    validation = first_rows(streams[held_split or split], held_split or split, count, decoder)
    taken = Counter(shard for shard, _ in validation.indices) if held_split is None else Counter()
    places = ShardPlaces([(taken[shard], length) for shard, length in enumerate(lengths)], request.max_train_pairs)
    if not len(places):
        raise UserError("--streaming: all pairs are set aside for validation. Give a smaller --max-validation-pairs.")
    if findings is None:
        few = min(FIRST_PAIRS, len(places))
        parts = [validation] if held_split is None else [validation, first_rows(streams[split], split, few, decoder)]
        findings = examine(parts, request)
    validation = findings.applied_to(validation)
    if not len(validation):
        raise UserError(f"--dataset {dataset}: no sound validation pair is left.")
    train = PairDataset(ShardRows(streams[split], block), places, findings.decoder_of(validation), split)
    note = "" if held_split else f" set aside from {split}"
    pairs = (
        f"{counted(len(train), 'pair')} in {counted(len(places.stretches), 'shard')}, streamed, and "
        f"{counted(len(validation), 'validation pair')}{note}"
    )
    description = _describe(pairs, request, train.decoder, f"{findings.size_words} (of the first)")
    return PairSplits(train, validation, description, "stream", mark, dataset, findings, lengths)


def _describe(pairs: str, request: PairOptions, decoder: RecordDecoder, sizes: str) -> str:
    assert decoder.source is not None and decoder.target is not None
    height, width = request.image_height_width
    pixels = dict.fromkeys([decoder.source.describe(), decoder.target.describe()])
    layout = f"{request.direction}: {' → '.join(decoder.sides)}"
    return f"{pairs}, {layout}, {sizes} → {height}x{width}, {' → '.join(pixels)}"


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
        found.pairs(split, request.swap, train[: request.max_train_pairs]),
        found.pairs(chosen or split, request.swap, held_out[: request.max_validation_pairs]),
        note,
    )


# --- forms


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
    loaded, identity = open_table(path, request, FORMS_THAT_WORK)
    splits = _splits_of(loaded)
    if not splits:
        raise UserError(f"--dataset {request.dataset} has no splits. {FORMS_THAT_WORK}")
    columns = choose_columns(splits.get(request.train_split, next(iter(splits.values()))).features, request)
    form = "two columns" if len(columns) == 2 else "side by side"
    rows = {name: undecoded(rows, columns, name, request) for name, rows in splits.items()}
    return FoundPairs(form, rows, columns, identity)


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
