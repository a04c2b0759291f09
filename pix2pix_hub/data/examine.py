"""The pass over all pairs before training: which of them are bad, how large they are, how their pixels are stored."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from tqdm import tqdm

from pix2pix_hub.config import PairOptions
from pix2pix_hub.data.bad_pairs import LISTED_FAULTS, Fault
from pix2pix_hub.data.pair_dataset import PairDataset
from pix2pix_hub.image.format import PixelFormat, Stored, distinct_colors, misfit_of, stored_as
from pix2pix_hub.image.palette import SAMPLED_PAIRS, Color, ColorSample, color_sample, palette_of
from pix2pix_hub.util import UserError, counted

FIRST_PAIRS = 8  # that tell the formats where not all are looked at
Names = Mapping[Color, str]


@dataclass(frozen=True)
class Findings:
    """What looking at the pairs found. Picklable: one process looks, the others are told."""

    source: PixelFormat
    target: PixelFormat
    sizes: str  # of the stored images (height x width; of the whole file where A and B share one)
    faults: tuple[Fault, ...] = ()

    def applied_to(self, pairs: PairDataset) -> PairDataset:
        """The sound ones of `pairs`, which can now be decoded."""
        bad = {fault.place for fault in self.faults if fault.split == pairs.split}
        sound = [row for index, row in enumerate(pairs.indices) if pairs.place(index) not in bad] if bad else None
        indices = pairs.indices if sound is None else sound
        return replace(pairs, indices=indices, decoder=pairs.decoder.with_formats(self.source, self.target))


@dataclass(frozen=True)
class Facts:
    """One sound pair."""

    size: tuple[int, int]
    source: Stored
    target: Stored
    colors: tuple[ColorSample | None, ColorSample | None] | None = None  # of both, where they were looked at


def examine(
    parts: Sequence[PairDataset],
    request: PairOptions,
    *,
    everything: bool,
    skip: bool,
    formats: tuple[PixelFormat, PixelFormat] | None = None,
    names: Names | None = None,
) -> Findings:
    """Decode every pair once, in threads (Pillow decodes outside the interpreter's lock).

    Args:
        everything: False looks at the first few pairs only, and passes over bad ones.
        skip: leave bad pairs out instead of stopping.
        formats: of source and target, where a model says what they must be; None: what most pairs have.
        names: of the classes, by their colours.

    Raises:
        UserError: names up to `LISTED_FAULTS` bad pairs and counts them all.
    """
    keys = [(pairs, index) for pairs in parts for index in range(len(pairs))]
    keys = keys if everything else keys[:FIRST_PAIRS]
    seen = look_at(keys, request)
    sound = [facts for facts in seen if isinstance(facts, Facts)]
    faults = [fault for fault in seen if isinstance(fault, Fault)]
    if not sound:
        raise UserError(_fault_text(faults, len(keys), request.dataset))
    source, target = formats or settle_formats(sound, request, names)
    for (pairs, index), facts in zip(keys, seen, strict=True):
        if isinstance(facts, Facts) and (fault := misfit(pairs, index, facts, (source, target))) is not None:
            faults.append(fault)
    if not everything:
        return Findings(source, target, f"{size_text([sound[0].size])} (the first)")
    if faults and not skip:
        raise UserError(_fault_text(faults, len(keys), request.dataset))
    return Findings(source, target, size_text([facts.size for facts in sound]), tuple(faults))


def look_at(keys: Sequence[tuple[PairDataset, int]], request: PairOptions) -> list[Facts | Fault]:
    """Every pair, decoded in threads; the colours of some, evenly spread."""
    step = max(1, -(-len(keys) // SAMPLED_PAIRS))

    def look(place: int) -> Facts | Fault:
        return _facts_of(*keys[place], request, with_colors=place % step == 0)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(look, range(len(keys)))
        return list(tqdm(results, "checking pairs", len(keys), unit="pair", leave=False, disable=len(keys) <= 1000))


def _facts_of(pairs: PairDataset, index: int, request: PairOptions, with_colors: bool) -> Facts | Fault:
    try:
        source, target = pairs.decoder.read(pairs.row(index), pairs.name(index))
    except UserError as error:
        return _fault(pairs, index, str(error))
    height, width = source.size
    size = (height, 2 * width) if len(pairs.columns) == 1 else (height, width)
    labels = request.source_mode == "labels", request.target_mode == "labels"
    colors = (color_sample(source, labels[0]), color_sample(target, labels[1])) if with_colors else None
    return Facts(size, stored_as(source, labels[0]), stored_as(target, labels[1]), colors)


def _fault(pairs: PairDataset, index: int, reason: str) -> Fault:
    shard, row = pairs.place(index)
    return Fault(pairs.split, row, reason, shard)


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


def misfit(pairs: PairDataset, index: int, facts: Facts, formats: tuple[PixelFormat, PixelFormat]) -> Fault | None:
    """What is wrong with a pair that can be read, but whose pixels are not of the formats of source and target."""
    for side, (stored, wanted) in enumerate(zip((facts.source, facts.target), formats, strict=True)):
        if (reason := misfit_of(stored, wanted)) is not None:
            name = pairs.decoder.names(pairs.row(index), pairs.name(index))[side]
            return _fault(pairs, index, f"{name} {reason}")
    return None


def _fault_text(faults: Sequence[Fault], total: int, dataset: str) -> str:
    listed = "".join(f"\n  {fault.reason}" for fault in faults[:LISTED_FAULTS])
    more = f"\n  … and {len(faults) - LISTED_FAULTS} more" if len(faults) > LISTED_FAULTS else ""
    return (
        f"--dataset {dataset}: {len(faults)} of {counted(total, 'pair')} cannot be used:{listed}{more}\n"
        "Replace or remove them and start again, or leave them out with --on-bad-pair skip."
    )


def size_text(sizes: Sequence[tuple[int, int]]) -> str:
    """ "256x512" (height x width), or the smallest and largest where they differ."""
    distinct = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    smallest, largest = (f"{height}x{width}" for height, width in (distinct[0], distinct[-1]))
    return smallest if len(distinct) == 1 else f"{len(distinct)} sizes from {smallest} to {largest}"
