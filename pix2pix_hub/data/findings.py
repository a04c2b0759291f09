"""What spoils training and can be seen in the pairs: shifted ones, validation pairs that also train, a side that is all
alike, classes that hardly occur, pairs the other way round.

All thresholds are ours, between real sets (façades, maps, shoes) and the same with such faults planted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pix2pix_hub.config import PairOptions
from pix2pix_hub.data.decode import PairDataset
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.image.palette import ColorSample, color_sample, rare_colors
from pix2pix_hub.image.read import Decoded
from pix2pix_hub.util import counted

SAMPLED_PAIRS, SAMPLE_SEED = 200, 0  # looked at for shifts and classes, drawn from all
NAMED_PAIRS = 10  # at most, in words
FEWEST_PAIRS = 20  # fewer say nothing about what most are like
LEAST_DIFFERENCE = 1 / 255  # root mean square of images from their mean: below, one image is right for all
SIDE, REACH = 256, 32  # pixels: every image is looked at in this size; a shift is looked for this far
MOST_SHIFT, MOST_SHIFT_OF_ALL = 4, 3  # pixels of `SIDE` that a pair may be off, as drawn façades are, and the mean
AROUND_PEAK = 8  # pixels of `SIDE`: so thick may lines be
LEAST_PEAK = 7.0  # standard deviations, of a correlation that shows a pair's shift
CLEARLY, CLEARER = 1.25, 3.0  # times as high as of sources with other targets, where one pair is off; where the mean is
THUMBNAIL, WAVES = 32, 16  # pixels; of its cosine transform so many frequencies a side are hashed
MOST_COMPARED = 2000  # validation pairs whose hashes are compared with those of all training pairs
SAME_BITS = 0.1  # of the hashes may differ: stored anew 0.06 do, of the two most similar different pairs 0.25
CLEAR_SIDE = 0.3  # of the usual difference of source and target: what differs by less is of neither kind


class _Seen(NamedTuple):
    """What is kept of a pair; of both sides where the first axis is of two."""

    name: str
    held_out: bool
    size: tuple[int, int]  # height and width, pixels
    hashes: NDArray[np.uint64]  # (2, WAVES² / 64)
    looks: list[NDArray[np.float64]]  # of each side that is a picture, see `_looks`
    grays: NDArray[np.float32]  # (2, SIDE, SIDE), stored values; of sampled pairs, else empty
    colors: tuple[ColorSample | None, ...]  # two, of sampled pairs


def all_alike(images: NDArray[np.floating[Any]]) -> bool:
    """Whether (N, …) images in [0, 1] are one image, but for less than a level of 255."""
    return float(np.sqrt(np.square(images - images.mean(0)).mean())) < LEAST_DIFFERENCE


class Look:
    """Called by `examine` with each pair, it keeps what `warnings` needs.

    Args:
        parts: the splits, as given to `examine`.
        held_out: places (part, index) of the pairs that validate.
        request: says what the pixels are.
    """

    def __init__(self, parts: Sequence[PairDataset], held_out: Collection[tuple[int, int]], request: PairOptions):
        self.parts, self.held_out = parts, held_out
        self.labels = request.source_mode == "labels", request.target_mode == "labels"
        places = [(part, index) for part, pairs in enumerate(parts) for index in range(len(pairs))]
        chosen = np.random.default_rng(SAMPLE_SEED).permutation(len(places))[:SAMPLED_PAIRS]
        self.sampled = {places[number] for number in chosen}
        self.seen: list[_Seen] = []

    def __call__(self, part: int, index: int, source: Decoded, target: Decoded) -> Callable[[], object]:
        """Look at a pair, in any thread; what is returned adds it, in order."""
        images = list(zip((source, target), self.labels, strict=True))
        grays, colors = np.stack([_gray(*image) for image in images]), tuple(color_sample(*image) for image in images)
        seen = _Seen(
            self.parts[part].name(index),
            (part, index) in self.held_out,
            source.size,
            _hashes(_thumbnails(grays)),
            [_looks(one) for one in colors if one is not None],
            *((grays, colors) if (part, index) in self.sampled else (grays[:0], ())),
        )
        return partial(self.seen.append, seen)

    def warnings(self, formats: Sequence[PixelFormat]) -> list[str]:
        """A sentence for each finding, with what to do; `formats` of source and target."""
        swapped = _swapped(self.seen)
        found = [*_shifted(self.seen), *_repeated(self.seen)]
        if swapped:
            start = (
                f"in {counted(len(swapped), 'pair')} of {len(self.seen)} source and target look swapped, beside the "
            )
            found.append(f"{start}others: {_listed(swapped)}. Swap them in the files; --direction is for all pairs.")
        sampled = [one for one in self.seen if one.colors and one.name not in swapped]
        for side, (name, stored) in enumerate(zip(("sources", "targets"), formats, strict=True)):
            images = np.array([_thumbnails(one.grays)[side] for one in sampled])
            span = stored.classes[-1] - stored.classes[0] if stored.classes else stored.high - stored.low
            if len(images) > 1 and all_alike(images / (span or 1)):
                labels = "" if stored.classes else f" If they hold class values, give --{name[:-1]}-mode labels."
                found.append(f"the {name} are all alike, to less than a level of 255: look at the files.{labels}")
            training = [not one.held_out for one in sampled]
            enough = stored.palette and len(sampled) >= FEWEST_PAIRS
            rare = rare_colors([one.colors[side] for one in sampled], training, stored) if enough else {}
            names = {entry.color: entry.name for entry in stored.palette}
            words = [
                f"{names.get(color) or '#' + bytes(color).hex()} ({counted(count, 'pair') if count else 'none'})"
                for color, count in rare.items()
            ]
            if words:
                found.append(
                    f"classes of the {name} that hardly occur in the {counted(sum(training), 'training pair')} looked "
                    f"at: {_listed(words)}. Add pairs that show them, or merge them into other classes."
                )
        return found


def _shifted(seen: Sequence[_Seen]) -> list[str]:
    own: list[tuple[_Seen, NDArray[np.float64]]] = []  # correlations of sources with their targets,
    unrelated: list[NDArray[np.float64]] = []  # and with other targets
    last = None
    for one in seen:
        source, target = map(_edges, one.grays) if len(one.grays) else (np.zeros(1), np.zeros(1))
        if source.any() and target.any():  # else there is nothing that could be off
            own.append((one, _correlation(source, target)))
            if last is not None:
                unrelated.append(_correlation(source, last))
            last = target
    if len(own) < FEWEST_PAIRS:
        return []
    chance = max(LEAST_PEAK, *(float(other.max()) for other in unrelated))
    clear = [  # peak, name and shift, down and right in pixels of `SIDE` and in stored ones
        (peaks.max() / chance, one.name, _place(peaks), _place(peaks) * np.array(one.size) / SIDE)
        for one, peaks in own
        if peaks.max() > chance
    ]
    clear.sort(key=lambda one: -np.hypot(*one[3]))
    mean = np.mean([peaks for _, peaks in own], axis=0)
    sure = mean.max() > CLEARER * np.mean(unrelated, axis=0).max()
    down, right = np.median([shift for *_, shift in clear], axis=0) if clear else (0.0, 0.0)
    if sure and np.hypot(*_place(mean)) > MOST_SHIFT_OF_ALL and np.hypot(down, right) >= 1:
        words = [f"{abs(right):.0f} to the {'right' if right > 0 else 'left'}"] if round(right) else []
        words += [f"{abs(down):.0f} {'below' if down > 0 else 'above'}"] if round(down) else []
        start = f"sources lie {' and '.join(words)} of their targets (pixels, median of {len(clear)}), the worst: "
    else:
        clear = [one for one in clear if one[0] > CLEARLY and np.hypot(*one[2]) > MOST_SHIFT and np.hypot(*one[3]) >= 1]
        start = f"shifted by so many pixels, {counted(len(clear), 'pair')} of {len(own)} looked at: "
    listed = _listed([f"{name} ({np.hypot(*shift):.0f})" for _, name, _, shift in clear])
    return [f"{start}{listed}. Align them, or leave them out."] if clear else []


def _repeated(seen: Sequence[_Seen]) -> list[str]:
    train, held_out = ([one for one in seen if one.held_out == side] for side in (False, True))
    if not train or not held_out:
        return []
    held_out = held_out[:: -(-len(held_out) // MOST_COMPARED)]
    hashes, found = np.stack([one.hashes for one in train]), []
    for one in held_out:
        differing = np.bitwise_count(hashes ^ one.hashes).sum(-1).max(-1)  # bits, on the side where there are more
        if differing.min() < SAME_BITS * WAVES**2:
            found.append(f"{one.name} as {train[int(differing.argmin())].name}")
    words = f"{counted(len(found), 'pair')} of {len(held_out)} that do not train stand in training, too: "
    advice = "Take them out of training: else they measure what was learnt by heart."
    return [f"{words}{_listed(found)}. {advice}"] if found else []


def _swapped(seen: Sequence[_Seen]) -> list[str]:
    """Names of pairs whose source looks like the other targets and whose target like the other sources.

    Along the first principal axis of their differences pairs lie on one side of 0, swapped ones on the other one. Where
    many lie near 0, the two sides look alike, and none is named.
    """
    known = [one for one in seen if len(one.looks) == 2]
    if len(known) < FEWEST_PAIRS:
        return []
    looks = np.array([one.looks for one in known])
    differences = (looks[:, 0] - looks[:, 1]) / np.maximum(looks.std((0, 1)), 1e-6)
    scores = differences @ np.linalg.svd(differences, full_matrices=False)[2][0]
    scores /= np.median(np.abs(scores)) * (1 if np.median(scores) > 0 else -1) + 1e-12
    found = [one.name for one, score in zip(known, scores, strict=True) if score < -CLEAR_SIDE]
    return found if np.quantile(np.abs(scores), 0.05) >= CLEAR_SIDE else []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED_PAIRS]) + (
        f" and {len(names) - NAMED_PAIRS} more" if len(names) > NAMED_PAIRS else ""
    )


def _gray(image: Decoded, labels: bool) -> NDArray[np.float32]:
    """Mean of the channels (labels: class values), (SIDE, SIDE)."""
    values = image.labels if labels else np.asarray(image.over_white()) if image.palette is not None else image.values
    values = image.values if values is None else values
    mean = values @ np.full(values.shape[2], 1 / values.shape[2], np.float32)
    return np.asarray(Image.fromarray(mean).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _thumbnails(grays: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2, SIDE, SIDE) → (2, THUMBNAIL, THUMBNAIL), means over squares."""
    return grays.reshape(2, THUMBNAIL, SIDE // THUMBNAIL, THUMBNAIL, -1).mean((2, 4))


def _looks(colors: ColorSample) -> NDArray[np.float64]:
    """Share of flat pixels, mean colourfulness, mean and spread of brightness."""
    pixels, brightness = colors[:, :3], colors[:, :3] @ np.full(3, 1 / 3, np.float32)
    chroma = np.maximum.reduce([*pixels.T]) - np.minimum.reduce([*pixels.T])
    return np.array([colors[:, 3].mean(), chroma.mean(), brightness.mean(), brightness.std()], np.float64)


_COSINES = np.cos(np.pi / THUMBNAIL * np.outer(np.arange(WAVES), np.arange(THUMBNAIL) + 0.5))


def _hashes(small: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Which of the lowest frequencies of the cosine transform are above their median, as bits."""
    waves = (_COSINES @ small @ _COSINES.T).reshape(len(small), -1)
    return np.packbits(waves > np.median(waves[:, 1:], axis=1, keepdims=True), axis=1).view(np.uint64)


_WINDOW = np.outer(np.hanning(SIDE), np.hanning(SIDE)).astype(np.float32)


def _edges(values: NDArray[np.float32]) -> NDArray[np.complexfloating[Any, Any]]:
    """Spectrum of how much each pixel differs from its four neighbours: of a line most on it, not at its two sides."""
    strength = np.zeros_like(values)
    for along, sums in ((values, strength), (values.T, strength.T)):
        steps = np.abs(np.diff(along, axis=0))
        sums[1:] += steps
        sums[:-1] += steps
    return np.fft.rfft2((strength - strength.mean()) * _WINDOW)


def _correlation(source: Any, target: Any) -> NDArray[np.float64]:
    """Correlation of two spectra, halfway to pure phase, over shifts up to `REACH`, in its standard deviations."""
    cross = source * np.conj(target)
    whole = np.fft.irfft2(cross / np.sqrt(np.abs(cross) + 1e-12), s=(SIDE, SIDE))
    near = np.roll(whole, (REACH, REACH), axis=(0, 1))[: 2 * REACH + 1, : 2 * REACH + 1]
    return np.asarray((near - near.mean()) / (near.std() + 1e-12), np.float64)


def _place(correlation: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far down and to the right the source lies of its target, in pixels of `SIDE`.

    Thick lines meet a photo's edges best at their two sides: the middle of the ring of peaks that this makes.
    """
    places = np.indices(correlation.shape)
    away = places - np.array(np.unravel_index(correlation.argmax(), correlation.shape))[:, None, None]
    ring = (np.hypot(*away) <= AROUND_PEAK) & (correlation > correlation.max() / 2)
    return np.asarray(places[:, ring].mean(1) - REACH, np.float64)
