"""Stored records → pairs of tensors: decoding one, and the pass that finds bad pairs and how pixels are stored."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pix2pix_hub.config import PairOptions, parse_range
from pix2pix_hub.image.format import PixelFormat, distinct_colors, misfit_of, stored_as, to_tensor
from pix2pix_hub.image.palette import SAMPLED_PAIRS, Color, ColorSample, color_sample, palette_of
from pix2pix_hub.image.read import FULL_SCALE, PICTURE_MODES, Decoded, read_image
from pix2pix_hub.util import UserError, counted, write_aside

BAD_PAIRS_NAME = "bad_pairs.jsonl"
LISTED_FAULTS = 20  # at most, in words
FIRST_PAIRS = 8  # that tell the formats where not all are looked at
RANGED_PAIRS, RANGED_PIXELS = 10_000, 1024  # looked at for the range of values: training pairs, pixels of each
NARROW = 0.2  # of the range: where most values lie in less, networks see little of what is there
TOGETHER = 64  # pairs decoded ahead of whoever takes them, which bounds memory
Names = Mapping[Color, str]
Place = tuple[int | None, int]  # shard (None: of a set that is not streamed) and row
Visit = Callable[[int, int, Decoded, Decoded], Callable[[], object] | None]  # see `examine`
T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """A pair that cannot be used; `reason` starts with its name."""

    split: str
    row: int  # of the split or, where there is one, of the shard
    reason: str
    shard: int | None = None  # of a streamed split

    @property
    def place(self) -> Place:
        """Where in its split the pair is."""
        return self.shard, self.row


def each_once(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """One fault for each pair, the first that was found, in the order of the pairs.

    Whatever order they came in, and from however many processes, the outcome is the same.
    """
    first = {(fault.split, fault.shard or 0, fault.row): fault for fault in reversed([*faults])}
    return tuple(first[key] for key in sorted(first))


def write_bad_pairs(folder: Path, faults: Iterable[Fault]) -> None:
    """Write `bad_pairs.jsonl`: a line for each, with `split`, `row`, `reason` and, of a streamed set, `shard`."""
    entries = ({name: value for name, value in asdict(fault).items() if value is not None} for fault in faults)
    with write_aside(folder / BAD_PAIRS_NAME) as partial:
        partial.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


# --- one of them


def file_of(row: Mapping[str, Any], column: str) -> str | None:
    """Name of the file, without folders, that an undecoded image came from; None: the row does not say."""
    path = (row[column] or {}).get("path")
    return PurePath(path).name if path else None


def file_in_words(row: Mapping[str, Any], column: str) -> str:
    """ " (0003.png)", or nothing where the row does not say."""
    file = file_of(row, column)
    return f" ({file})" if file else ""


def read_stored(stored: Mapping[str, Any] | None, name: str) -> Decoded:
    """Decode an image as `datasets` stores it: its bytes, or the path of its file. One with `read` comes by that.

    Raises:
        UserError: missing, or an image that cannot be read; the text starts with `name`.
    """
    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        raise UserError(f"{name} is missing (null); expected an image.")
    if "read" in stored:
        return stored["read"]()
    return read_image(stored["path"] if stored["bytes"] is None else stored["bytes"], name)


@dataclass(frozen=True)
class PairDataset:
    """A sequence of stored pairs that decodes one at a time. Picklable, for the workers of a `DataLoader`."""

    rows: Any  # by row number: `columns` undecoded ({"bytes", "path"}), and `name` where pairs are files
    indices: Sequence[Any]  # which rows, in order: numbers or, of a streamed set, (shard, row)
    split: str
    columns: tuple[str, ...]  # one: A and B side by side; two: A, B
    swap: bool  # B is the source
    source: PixelFormat | None = None  # how the pixels of each side are stored
    target: PixelFormat | None = None  # None: not known yet, pairs can be read, but not be made tensors of
    least: tuple[int, int] = (1, 1)  # height and width that are needed, see `ImageOptions.least_size`

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Source and target, `(C, H, W)` each, as stored (uint8, or float32 for deeper formats).

        Raises:
            UserError: an image that cannot be read or does not fit; the text starts with its name.
        """
        row, name, formats = self.row(index), self.name(index), self.formats
        source, target = self.decode(row, name)
        names = self.names(row, name)
        return to_tensor(source, formats["source"], names[0]), to_tensor(target, formats["target"], names[1])

    def read(self, index: int) -> tuple[Decoded, Decoded]:
        """Source and target in whatever pixels they are stored. Raises as `decode`."""
        return self.decode(self.row(index), self.name(index))

    def decode(self, row: Mapping[str, Any], name: str) -> tuple[Decoded, Decoded]:
        """Source and target of a record as stored, of one size. Halves of a file may be portraits, down to 3:4.

        Raises:
            UserError: an image that cannot be read, has no partner or another size, is too small, or is no side-by-side
                pair; the text starts with the file's name or, where there is none, with `name`.
        """
        source, target = self._both(row, name)
        if any(has < least for has, least in zip(source.size, self.least, strict=True)):
            sizes = ["{}x{}".format(*size) for size in (source.size, self.least)]
            raise UserError(
                f"{name}: its images are {sizes[0]} (height x width), smaller than the crops of {sizes[1]} that "
                "--resize native takes. Give a smaller --image-size."
            )
        return source, target

    def _both(self, row: Mapping[str, Any], name: str) -> tuple[Decoded, Decoded]:
        """Both, of whatever size. Raises as `decode`."""
        if row.get("pair_fault"):
            raise UserError(row["pair_fault"])
        if len(self.columns) == 1:
            image = read_stored(row[self.columns[0]], name)
            height, width = image.size
            if width % 2 or width < 1.5 * height:
                raise UserError(
                    f"{name} is {height}x{width} (height x width): not a side-by-side pair, "
                    "which has an even width of at least 1.5 times its height."
                )
            first, second = image.halves()
            return (second, first) if self.swap else (first, second)
        names = self.names(row, name)
        source, target = (read_stored(row[side], names[k]) for k, side in enumerate(self.sides))
        if source.size != target.size:
            sizes = ["{}x{}".format(*image.size) for image in (source, target)]
            raise UserError(
                f"{name}: its two images differ in size, {sizes[0]} in {self.sides[0]} and {sizes[1]} in "
                f"{self.sides[1]} (height x width); a pair shows the same thing at the same place."
            )
        return source, target

    def row(self, index: int) -> Mapping[str, Any]:
        """The undecoded record."""
        return self.rows[self.indices[index]]

    def name(self, index: int) -> str:
        """The pair's file inside the data set ("train/17.jpg"), or "row 17 of split train"."""
        shard, row = self.place(index)
        if shard is not None:
            return f"row {row} of shard {shard} of split {self.split}"
        return self.rows[row]["name"] if "name" in self.rows.column_names else f"row {row} of split {self.split}"

    def names(self, row: Mapping[str, Any], name: str) -> tuple[str, str]:
        """Names of source and target of a record, for errors: their files, where pairs are files of two folders."""
        if len(self.columns) == 1:
            return f"{name}, {self.sides[0]},", f"{name}, {self.sides[1]},"
        if "pair_files" in row:
            first, second = row["pair_files"]
            return (second, first) if self.swap else (first, second)
        source, target = (f"{name}, column {side}{file_in_words(row, side)}" for side in self.sides)
        return source, target

    def place(self, index: int) -> Place:
        """Where in its split the pair is."""
        place = self.indices[index]
        return place if isinstance(place, tuple) else (None, place)

    def fault(self, index: int, reason: str) -> Fault:
        """Make a `Fault` of a pair."""
        shard, row = self.place(index)
        return Fault(self.split, row, reason, shard)

    @property
    def sides(self) -> tuple[str, str]:
        """Names of source and target in the data: columns, folders or halves."""
        first, second = ("left half", "right half") if len(self.columns) == 1 else self.columns
        return (second, first) if self.swap else (first, second)

    @property
    def formats(self) -> dict[str, PixelFormat]:
        """Format of the pixels of "source" and "target"."""
        assert self.source is not None and self.target is not None, "formats are not known yet"
        return {"source": self.source, "target": self.target}


# --- all of them


@dataclass(frozen=True)
class Findings:
    """Formats, sizes and bad pairs of a set. Picklable: one process looks, the others are told."""

    source: PixelFormat
    target: PixelFormat
    sizes: Counter[tuple[int, int]]  # stored height and width (of the whole file where A and B share one) → pairs
    faults: tuple[Fault, ...] = ()
    narrow: tuple[str, ...] = ()  # a sentence for each side whose values use little of their range

    def applied_to(self, pairs: PairDataset) -> PairDataset:
        """The sound ones of `pairs`, which can now be decoded."""
        bad = {fault.place for fault in self.faults if fault.split == pairs.split}
        indices = pairs.indices
        if bad:
            indices = [row for index, row in enumerate(indices) if pairs.place(index) not in bad]
        return replace(pairs, indices=indices, source=self.source, target=self.target)

    @property
    def size_words(self) -> str:
        """ "256x512" (height x width), or the smallest and largest where they differ."""
        distinct = sorted(self.sizes, key=lambda size: (size[0] * size[1], size))
        smallest, largest = (f"{height}x{width}" for height, width in (distinct[0], distinct[-1]))
        return smallest if len(distinct) == 1 else f"{len(distinct)} sizes from {smallest} to {largest}"


class _Look(NamedTuple):
    """One pair that can be read."""

    size: tuple[int, int]  # of the whole file where A and B share one
    stored: list[PixelFormat]  # of source and target
    colors: list[ColorSample | None] | None  # of both, where they were looked at
    values: list[NDArray[Any]]  # some of both, of training pairs of more than 8 bits; else none
    then: Callable[[], object] | None  # of `visit`


def examine(
    parts: Sequence[PairDataset],
    request: PairOptions,
    *,
    everything: bool = True,
    formats: tuple[PixelFormat, PixelFormat] | None = None,
    names: Names | None = None,
    visit: Visit | None = None,
) -> Findings:
    """Decode every pair once, in threads; bad pairs are skipped where `request.on_bad_pair` says so.

    Args:
        everything: False looks at the first few pairs only, and passes over bad ones.
        formats: of source and target, where a model says what they must be; None: what most pairs have.
        names: of the classes, by their colours.
        visit: called in threads with part, index, source and target of each pair that can be read; what it returns is
            called in the order of the pairs.

    Raises:
        UserError: names up to `LISTED_FAULTS` bad pairs and counts them all.
    """
    keys = [(part, index) for part, pairs in enumerate(parts) for index in range(len(pairs))]
    keys = keys if everything else keys[:FIRST_PAIRS]
    step = max(1, -(-len(keys) // SAMPLED_PAIRS))
    modes = request.source_mode, request.target_mode
    training = next((part for part, pairs in enumerate(parts) if pairs.split == request.train_split), None)

    def look(number: int) -> _Look | Fault:
        part, index = keys[number]
        try:
            images = parts[part].read(index)
        except UserError as error:
            return parts[part].fault(index, str(error))
        height, width = images[0].size
        size = (height, width * (1 if len(parts[part].columns) == 2 else 2))
        both = [(image, mode == "labels") for image, mode in zip(images, modes, strict=True)]
        colors = [color_sample(*one) for one in both] if number % step == 0 else None  # evenly spread
        ranged = part == training and index % max(1, len(parts[part]) // RANGED_PAIRS) == 0
        values = [_some_values(image) if ranged else np.empty(0, np.uint8) for image in images]
        return _Look(size, [stored_as(*one) for one in both], colors, values, visit and visit(part, index, *images))

    def settled(k: int) -> PixelFormat:
        side = ("source", "target")[k]
        stored = settle_format(side, [one.stored[k] for one in seen.values()], modes[k])
        samples = [one.colors[k] for one in seen.values() if one.colors is not None]
        values = [one.values[k] for one in seen.values() if str(one.values[k].dtype) == stored.dtype]
        stored = with_range(f"{side} images", stored, values, request.range)
        return replace(stored, palette=palette_of(samples, names or {}, stored))

    seen: dict[tuple[int, int], _Look] = {}
    faults: list[Fault] = []
    for key, found in zip(keys, in_threads(look, len(keys), "checking pairs"), strict=True):
        if isinstance(found, Fault):
            faults.append(found)
        else:
            if found.then is not None:
                found.then()
            seen[key] = found._replace(then=None)
    narrow: tuple[str, ...] = ()
    if seen and formats is None:
        formats = settled(0), settled(1)
        if request.range is not None and {form.dtype for form in formats} == {"uint8"}:
            raise UserError(
                f"--range {request.range} is for images of 16 bits or floats, and these have 8: leave it out."
            )
        for k, stored in enumerate(formats):
            values = [one.values[k] for one in seen.values() if str(one.values[k].dtype) == stored.dtype]
            narrow += narrow_words(("sources", "targets")[k], stored, values)
    for (part, index), one in seen.items():
        assert formats is not None
        misfits = [misfit_of(stored, wanted) for stored, wanted in zip(one.stored, formats, strict=True)]
        if (side := next((k for k in (0, 1) if misfits[k] is not None), None)) is not None:
            pairs = parts[part]
            name = pairs.names(pairs.row(index), pairs.name(index))[side]
            faults.append(pairs.fault(index, f"{name} {misfits[side]}"))
    if formats is None or not seen or (everything and faults and request.on_bad_pair != "skip"):
        listed = "".join(f"\n  {fault.reason}" for fault in faults[:LISTED_FAULTS])
        more = f"\n  … and {len(faults) - LISTED_FAULTS} more" if len(faults) > LISTED_FAULTS else ""
        raise UserError(
            f"--dataset {request.dataset}: {len(faults)} of {counted(len(keys), 'pair')} cannot be used:{listed}{more}"
            "\nReplace or remove them and start again, or leave them out with --on-bad-pair skip."
        )
    sizes = [one.size for one in seen.values()]
    counted_sizes = Counter(sizes if everything else sizes[:1])
    return Findings(*formats, counted_sizes, tuple(faults) if everything else (), narrow)


def _some_values(image: Decoded) -> NDArray[Any]:
    """Values of evenly spread pixels of an image of more than 8 bits, which its percentiles are taken of."""
    if image.values.dtype == np.uint8:
        return np.empty(0, np.uint8)
    alpha = image.kind == "rgba" or (image.kind == "gray" and image.values.shape[2] == 2)
    pixels = image.values[:, :, :-1] if alpha else image.values
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / RANGED_PIXELS) ** 0.5))
    return pixels[::step, ::step].ravel()


def with_range(images: str, stored: PixelFormat, values: Sequence[NDArray[Any]], text: str | None) -> PixelFormat:
    """The format with the range that `--range` asks for; of 8 bits, or where nothing is asked for, as it is.

    Args:
        images: what errors call them.
        stored: their format.
        values: some of their values.
        text: of the option.

    Raises:
        UserError: there are no such values; of images with transparency.
    """
    if text is None or stored.dtype == "uint8":
        return stored
    low, high, percentiles = parse_range(text)
    if stored.mode == "rgba":
        raise UserError(f"--range {text}: the {images} have transparency, which has no range. Leave it out.")
    if percentiles:
        known = np.concatenate([np.empty(0), *values])
        low, high = np.percentile(known[np.isfinite(known)], (low, high)).tolist() if len(known) else (0.0, 0.0)
    if stored.dtype == "uint16":
        low, high = round(low), round(high)
        if low < 0 or high > FULL_SCALE["uint16"]:
            raise UserError(f"--range {text}: the {images} have 16 bits, which hold 0 to 65535.")
    if not low < high:
        raise UserError(f"--range {text}: the {images} all have the value {low:g} there. Give other bounds.")
    return replace(stored, low=float(low), high=float(high), clip=True)


def narrow_words(side: str, stored: PixelFormat, values: Sequence[NDArray[Any]]) -> tuple[str, ...]:
    """What to do about a side most of whose values lie in a small part of the range trained on; else nothing."""
    if stored.clip or stored.dtype == "uint8" or not any(map(len, values)):
        return ()
    low, high = np.nanpercentile(np.concatenate(values), (2, 98)).tolist()
    if not high - low < NARROW * (stored.high - stored.low):
        return ()
    return (
        f"the {side} hardly use their range: 96% of the values lie from {low:g} to {high:g}, out of "
        f"{stored.low:g} to {stored.high:g}, so the networks can hardly tell them apart. Add --range 2-98%, "
        "or give the values to train on.",
    )


def in_threads(work: Callable[[int], T], count: int, words: str) -> Iterator[T]:
    """Yield `work(0)`, `work(1)`, …, `work(count - 1)` (Pillow and torch work outside the interpreter's lock)."""
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(total=count, desc=words, unit="pair", leave=False, disable=count <= 1000) as bar,
    ):
        for start in range(0, count, TOGETHER):
            for result in pool.map(work, range(start, min(start + TOGETHER, count))):
                yield result
                bar.update()


def settle_format(side: str, stored: Sequence[PixelFormat], mode: str) -> PixelFormat:
    """One format for all images of a side.

    The family (depth, number of bands) that most images belong to wins; the others are bad pairs. Within pictures,
    "auto" is gray where all are gray, else RGB, with white under what is transparent. Labels are the class values
    found, in order, with the colours of the first palette there is, else distinct ones.

    Args:
        side: "source" or "target".
        stored: of each image, by `stored_as`.
        mode: "auto", or what was asked for.

    Raises:
        UserError: the mode asked for does not go with what is stored.
    """
    if mode == "labels":
        single = [image for image in stored if image.classes]
        if not single:
            raise UserError(
                f"--{side}-mode labels: the {side} images are {stored[0].mode} of {stored[0].channels} channels; "
                "expected palette images, or one channel of class values."
            )
        values = sorted({value for image in single for value in image.classes})
        if values[0] < 0 or values[-1] > 255 or any(value != int(value) for value in values):
            found = f"values from {values[0]} to {values[-1]}"
            raise UserError(f"--{side}-mode labels: {found}; expected integers 0 to 255.")
        classes = tuple(int(value) for value in values)
        palette = next((image.colors for image in single if image.colors), ())
        colors = [palette[value] if value < len(palette) else (0, 0, 0) for value in classes]
        colors = colors if palette else distinct_colors(len(classes))
        return PixelFormat("labels", len(classes), classes=classes, colors=tuple(colors))
    dtype, channels = Counter(image.family for image in stored).most_common(1)[0][0]
    members = [image for image in stored if image.family == (dtype, channels)]
    low, high = 0.0, FULL_SCALE[dtype]  # all that an integer can hold; of floats [0, 1], [-1, 1] or what was found
    if dtype == "float32":
        least, most = min(image.low for image in members), max(image.high for image in members)
        if least < -1.0 or most > 1.0:
            low, high = least, most if most > least else least + 1.0
        elif least < 0.0:
            low = -1.0
    if channels:
        if mode != "auto":
            raise UserError(f"--{side}-mode {mode}: the {side} images have {channels} bands. Leave it out.")
        return PixelFormat("channels", channels, dtype, low, high)
    if mode == "auto":
        mode = "gray" if all(image.mode == "gray" for image in members) else "rgb"
    return PixelFormat(mode, PICTURE_MODES[mode], dtype, low, high)
