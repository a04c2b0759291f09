"""Stored records → pairs of tensors: decoding one, and the pass that finds bad pairs and how pixels are stored."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Protocol, TypeVar

from torch import Tensor
from tqdm import tqdm

from pix2pix_hub.config import PairOptions
from pix2pix_hub.image.format import PixelFormat, Stored, distinct_colors, misfit_of, stored_as, to_tensor
from pix2pix_hub.image.palette import SAMPLED_PAIRS, Color, ColorSample, color_sample, palette_of
from pix2pix_hub.image.read import Decoded, read_image
from pix2pix_hub.util import UserError, counted, write_aside

BAD_PAIRS_NAME = "bad_pairs.jsonl"
LISTED_FAULTS = 20  # at most, in words
FIRST_PAIRS = 8  # that tell the formats where not all are looked at
TOGETHER = 64  # pairs decoded ahead of whoever takes them, which bounds memory
Names = Mapping[Color, str]
Place = tuple[int | None, int]  # shard (None: of a set that is not streamed) and row
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
    first: dict[tuple[str, int, int], Fault] = {}
    for fault in faults:
        shard = -1 if fault.shard is None else fault.shard
        first.setdefault((fault.split, shard, fault.row), fault)
    return tuple(first[key] for key in sorted(first))


def write_bad_pairs(folder: Path, faults: Iterable[Fault]) -> None:
    """Write `bad_pairs.jsonl`: a line for each, with `split`, `row`, `reason` and, of a streamed set, `shard`."""
    entries = ({name: value for name, value in asdict(fault).items() if value is not None} for fault in faults)
    with write_aside(folder / BAD_PAIRS_NAME) as partial:
        partial.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


# --- one record


@dataclass(frozen=True)
class RecordDecoder:
    """Decodes rows of a `datasets` set, map-style or streamed, whose image columns are undecoded.

    Picklable, for the workers of a `DataLoader`.
    """

    columns: tuple[str, ...]  # one: A and B side by side; two: A, B
    swap: bool  # B is the source
    source: PixelFormat | None = None  # None: not known yet; `read` works, `to_tensors` does not
    target: PixelFormat | None = None

    @property
    def sides(self) -> tuple[str, str]:
        """What source and target are called in the data: columns, folders or halves."""
        first, second = ("left half", "right half") if len(self.columns) == 1 else self.columns
        return (second, first) if self.swap else (first, second)

    def names(self, row: Mapping[str, Any], name: str) -> tuple[str, str]:
        """What errors call source and target of a row: their files, where pairs are files of two folders."""
        if len(self.columns) == 2 and "pair_files" in row:
            first, second = row["pair_files"]
            return (second, first) if self.swap else (first, second)
        if len(self.columns) == 1:
            return f"{name}, {self.sides[0]},", f"{name}, {self.sides[1]},"
        source, target = (f"{name}, column {side}{file_in_words(row, side)}" for side in self.sides)
        return source, target

    def read(self, row: Mapping[str, Any], name: str) -> tuple[Decoded, Decoded]:
        """Source and target as stored, of one size. Portrait halves of a file down to 3:4 count as halves.

        Raises:
            UserError: an image that cannot be read, has no partner or another size, or is no side-by-side pair; the
                text starts with the file's name or, where there is none, with `name`.
        """
        if row.get("pair_fault"):
            raise UserError(row["pair_fault"])
        if len(self.columns) == 1:
            image = read_stored(row[self.columns[0]], name)
            height, width = image.size
            if width % 2 or width < 1.5 * height:
                raise UserError(
                    f"{name} is {height}x{width} (height x width): no side-by-side pair, "
                    "which has an even width of at least 1.5 times its height."
                )
            first, second = image.halves()
            return (second, first) if self.swap else (first, second)
        source, target = (
            read_stored(row[side], words) for side, words in zip(self.sides, self.names(row, name), strict=True)
        )
        sizes = ["{}x{}".format(*image.size) for image in (source, target)]
        if sizes[0] != sizes[1]:
            raise UserError(
                f"{name}: its two images differ in size, {sizes[0]} in {self.sides[0]} and {sizes[1]} in "
                f"{self.sides[1]} (height x width); a pair shows the same thing at the same place."
            )
        return source, target

    def to_tensors(self, source: Decoded, target: Decoded, names: tuple[str, str]) -> tuple[Tensor, Tensor]:
        """What `read` gives as `(C, H, W)` each, of stored values (uint8, or float32 for deeper formats).

        Raises:
            UserError: pixels that do not fit the side's format, of the image with that name.
        """
        assert self.source is not None and self.target is not None, "formats are not known yet"
        return to_tensor(source, self.source, names[0]), to_tensor(target, self.target, names[1])


def file_of(row: Mapping[str, Any], column: str) -> str | None:
    """Name of the file, without folders, that an undecoded image came from; None: the row does not say."""
    path = (row[column] or {}).get("path")
    return PurePath(path).name if path else None


def file_in_words(row: Mapping[str, Any], column: str) -> str:
    """ " (0003.png)", or nothing where the row does not say."""
    file = file_of(row, column)
    return f" ({file})" if file else ""


def read_stored(stored: Mapping[str, Any] | None, name: str) -> Decoded:
    """What `datasets` keeps of an undecoded image: its bytes, or the path of its file.

    Raises:
        UserError: missing, or an image that cannot be read; the text starts with `name`.
    """
    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        raise UserError(f"{name} is missing (null); expected an image.")
    return read_image(stored["path"] if stored["bytes"] is None else stored["bytes"], name)


@dataclass(frozen=True)
class PairDataset:
    """A sequence of stored pairs that decodes one at a time. Picklable, for the workers of a `DataLoader`."""

    rows: Any  # the decoder's columns undecoded ({"bytes", "path"}), and `name` where pairs are files; by row number
    indices: Sequence[Any]  # which rows, in order: numbers or, of a streamed set, (shard, row)
    decoder: RecordDecoder
    split: str

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Source and target, `(C, H, W)` each, as stored (uint8, or float32 for deeper formats).

        Raises:
            UserError: an image that cannot be read or does not fit; the text starts with its name.
        """
        row, name = self.row(index), self.name(index)
        return self.decoder.to_tensors(*self.decoder.read(row, name), self.decoder.names(row, name))

    def read(self, index: int) -> tuple[Decoded, Decoded]:
        """Source and target in whatever pixels they are stored.

        Raises:
            UserError: see `RecordDecoder.read`.
        """
        return self.decoder.read(self.row(index), self.name(index))

    def row(self, index: int) -> dict[str, Any]:
        """The undecoded record."""
        return self.rows[self.indices[index]]

    def name(self, index: int) -> str:
        """The pair's file inside the data set ("train/17.jpg"), or "row 17 of split train"."""
        shard, row = self.place(index)
        if shard is not None:
            return f"row {row} of shard {shard} of split {self.split}"
        return self.rows[row]["name"] if "name" in self.rows.column_names else f"row {row} of split {self.split}"

    def place(self, index: int) -> Place:
        """Where in its split the pair is."""
        place = self.indices[index]
        return place if isinstance(place, tuple) else (None, place)

    def fault(self, index: int, reason: str) -> Fault:
        """What is wrong with a pair."""
        shard, row = self.place(index)
        return Fault(self.split, row, reason, shard)

    @property
    def columns(self) -> tuple[str, ...]:
        """The image columns: one (A and B side by side) or two (A, B)."""
        return self.decoder.columns

    @property
    def formats(self) -> dict[str, PixelFormat]:
        """How the pixels of each side are stored: "source", "target"."""
        assert self.decoder.source is not None and self.decoder.target is not None
        return {"source": self.decoder.source, "target": self.decoder.target}


# --- all of them


@dataclass(frozen=True)
class Findings:
    """What looking at the pairs found. Picklable: one process looks, the others are told."""

    source: PixelFormat
    target: PixelFormat
    sizes: Counter[tuple[int, int]]  # stored height and width (of the whole file where A and B share one) → pairs
    faults: tuple[Fault, ...] = ()

    def applied_to(self, pairs: PairDataset) -> PairDataset:
        """The sound ones of `pairs`, which can now be decoded."""
        bad = {fault.place for fault in self.faults if fault.split == pairs.split}
        sound = [row for index, row in enumerate(pairs.indices) if pairs.place(index) not in bad] if bad else None
        indices = pairs.indices if sound is None else sound
        return replace(pairs, indices=indices, decoder=self.decoder_of(pairs))

    def decoder_of(self, pairs: PairDataset) -> RecordDecoder:
        """The decoder of such pairs, which can now decode."""
        return replace(pairs.decoder, source=self.source, target=self.target)

    @property
    def size_words(self) -> str:
        """ "256x512" (height x width), or the smallest and largest where they differ."""
        distinct = sorted(self.sizes, key=lambda size: (size[0] * size[1], size))
        smallest, largest = (f"{height}x{width}" for height, width in (distinct[0], distinct[-1]))
        return smallest if len(distinct) == 1 else f"{len(distinct)} sizes from {smallest} to {largest}"


@dataclass(frozen=True)
class Facts:
    """One sound pair."""

    size: tuple[int, int]
    source: Stored
    target: Stored
    colors: tuple[ColorSample | None, ColorSample | None] | None  # of both, where they were looked at


class Keeper(Protocol):
    """Keeps something of each pair that can be read."""

    def prepare(self, part: int, source: Decoded, target: Decoded) -> Any:
        """What is to be kept of a pair of a part; called in threads."""

    def keep(self, part: int, index: int, prepared: Any) -> None:
        """Keep it; called in the order of the pairs."""


def examine(
    parts: Sequence[PairDataset],
    request: PairOptions,
    *,
    everything: bool = True,
    formats: tuple[PixelFormat, PixelFormat] | None = None,
    names: Names | None = None,
    keeper: Keeper | None = None,
) -> Findings:
    """Decode every pair once, in threads; bad pairs are left out where `request.on_bad_pair` says so.

    Args:
        everything: False looks at the first few pairs only, and passes over bad ones.
        formats: of source and target, where a model says what they must be; None: what most pairs have.
        names: of the classes, by their colours.
        keeper: takes the pairs as they come.

    Raises:
        UserError: names up to `LISTED_FAULTS` bad pairs and counts them all.
    """
    keys = [(part, index) for part, pairs in enumerate(parts) for index in range(len(pairs))]
    keys = keys if everything else keys[:FIRST_PAIRS]
    step = max(1, -(-len(keys) // SAMPLED_PAIRS))
    labels = request.source_mode == "labels", request.target_mode == "labels"

    def look(number: int) -> tuple[Facts, Any] | Fault:
        part, index = keys[number]
        pairs = parts[part]
        try:
            source, target = pairs.read(index)
        except UserError as error:
            return pairs.fault(index, str(error))
        height, width = source.size
        size = (height, width * (1 if len(pairs.columns) == 2 else 2))
        colors = None
        if number % step == 0:  # evenly spread
            colors = (color_sample(source, labels[0]), color_sample(target, labels[1]))
        facts = Facts(size, stored_as(source, labels[0]), stored_as(target, labels[1]), colors)
        return facts, keeper and keeper.prepare(part, source, target)

    seen: list[tuple[PairDataset, int, Facts]] = []
    faults: list[Fault] = []
    for (part, index), result in zip(keys, in_threads(look, len(keys), "checking pairs"), strict=True):
        if isinstance(result, Fault):
            faults.append(result)
            continue
        seen.append((parts[part], index, result[0]))
        if keeper is not None:
            keeper.keep(part, index, result[1])
    if not seen:
        raise UserError(_fault_text(faults, len(keys), request.dataset))
    source, target = formats or settle_formats([facts for *_, facts in seen], request, names)
    for pairs, index, facts in seen:
        for side, (stored, wanted) in enumerate(((facts.source, source), (facts.target, target))):
            if (reason := misfit_of(stored, wanted)) is not None:
                name = pairs.decoder.names(pairs.row(index), pairs.name(index))[side]
                faults.append(pairs.fault(index, f"{name} {reason}"))
                break
    if not everything:
        return Findings(source, target, Counter([seen[0][2].size]))
    if faults and request.on_bad_pair != "skip":
        raise UserError(_fault_text(faults, len(keys), request.dataset))
    return Findings(source, target, Counter(facts.size for *_, facts in seen), tuple(faults))


def in_threads(work: Callable[[int], T], count: int, words: str) -> Iterator[T]:
    """What `work` makes of 0, 1, … `count` - 1, in order (Pillow and torch work outside the interpreter's lock)."""
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(total=count, desc=words, unit="pair", leave=False, disable=count <= 1000) as bar,
    ):
        for start in range(0, count, TOGETHER):
            for result in pool.map(work, range(start, min(start + TOGETHER, count))):
                yield result
                bar.update()


def settle_formats(
    sound: Sequence[Facts], request: PairOptions, names: Names | None = None
) -> tuple[PixelFormat, PixelFormat]:
    """The formats of both sides, from what all (or the first) pairs are stored as, with their palettes."""
    source = settle_format("source", [facts.source for facts in sound], request.source_mode)
    target = settle_format("target", [facts.target for facts in sound], request.target_mode)
    samples = [facts.colors for facts in sound if facts.colors is not None]
    return (
        replace(source, palette=palette_of([colors[0] for colors in samples], names or {}, source)),
        replace(target, palette=palette_of([colors[1] for colors in samples], names or {}, target)),
    )


def settle_format(side: str, stored: Sequence[Stored], mode: str) -> PixelFormat:
    """One format for all images of a side.

    The family (depth, number of bands) that most images belong to wins; the others are bad pairs. Within pictures,
    "auto" is gray where all are gray, else RGB, with white under what is transparent.

    Raises:
        UserError: the mode asked for does not go with what is stored.
    """
    if mode == "labels":
        return _labels(side, stored)
    family = Counter(image.family for image in stored).most_common(1)[0][0]
    members = [image for image in stored if image.family == family]
    dtype, channels = family
    low, high = _value_range(members, dtype)
    if channels:
        if mode != "auto":
            raise UserError(f"--{side}-mode {mode}: the {side} images have {channels} bands. Leave it out.")
        return PixelFormat("channels", channels, dtype, low, high)
    if mode == "auto":
        mode = "gray" if all(image.kind == "gray" for image in members) else "rgb"
    return PixelFormat(mode, {"gray": 1, "rgb": 3, "rgba": 4}[mode], dtype, low, high)


def _value_range(members: Iterable[Stored], dtype: str) -> tuple[float, float]:
    """Stored values that become -1 and 1: all an integer can hold; of floats [0, 1], [-1, 1] or what was found."""
    if dtype != "float32":
        return 0.0, {"uint8": 255.0, "uint16": 65535.0}[dtype]
    low, high = min(image.low for image in members), max(image.high for image in members)
    if low >= -1.0 and high <= 1.0:
        return (0.0 if low >= 0.0 else -1.0), 1.0
    return low, high if high > low else low + 1.0


def _labels(side: str, stored: Sequence[Stored]) -> PixelFormat:
    """Class values found, in order, with the colours of the first palette there is, else distinct ones."""
    single = [image for image in stored if image.values]
    if not single:
        raise UserError(
            f"--{side}-mode labels: the {side} images are {stored[0].kind} of {stored[0].channels} channels; expected "
            "palette images, or one channel of class values."
        )
    values = sorted(frozenset().union(*(image.values for image in single)))
    if values[0] < 0 or values[-1] > 255 or any(value != int(value) for value in values):
        raise UserError(f"--{side}-mode labels: values from {values[0]} to {values[-1]}; expected integers 0 to 255.")
    classes = tuple(int(value) for value in values)
    palette = next((image.colors for image in single if image.colors), ())
    colors = [palette[value] if value < len(palette) else (0, 0, 0) for value in classes]
    return PixelFormat(
        *("labels", len(classes), "uint8", 0.0, 255.0),
        classes=classes,
        colors=tuple(colors if palette else distinct_colors(len(classes))),
    )


def _fault_text(faults: Sequence[Fault], total: int, dataset: str) -> str:
    listed = "".join(f"\n  {fault.reason}" for fault in faults[:LISTED_FAULTS])
    more = f"\n  … and {len(faults) - LISTED_FAULTS} more" if len(faults) > LISTED_FAULTS else ""
    return (
        f"--dataset {dataset}: {len(faults)} of {counted(total, 'pair')} cannot be used:{listed}{more}\n"
        "Replace or remove them and start again, or leave them out with --on-bad-pair skip."
    )
