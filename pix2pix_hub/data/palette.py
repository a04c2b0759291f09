"""The few colours that label maps and drawings are made of, and photos are not: what a drawing tool offers.

Files without loss (PNG) simply hold few. JPEG and scaling blur them, so there the flat areas are looked at, where the
colours of a label map stand out as narrow peaks and those of a photo run into each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pix2pix_hub.data.pixels import Decoded, is_single, label_values
from pix2pix_hub.images import PaletteColor, PixelFormat, over_white

SAMPLED_PAIRS, PIXELS_PER_IMAGE = 40, 4096  # looked at
MOST_VALUES = 256
MOST_COLORS, LEAST_SHARE = 40, 0.002  # of the pixels, for a colour that is no noise
COLOR_RADIUS = 20  # largest difference in any of R, G, B of what counts as one colour: JPEG noise stays inside
FLAT_STEP = 10  # largest such difference between neighbours in a flat area
NOISE = 20  # times as frequent as what noise makes of it
CHROMA = 16  # largest difference between R, G and B of what counts as gray

# Measured on label maps as PNG, JPEG (quality 50 and 75) and scaled, and on photos: in colour or gray, on a plain
# background, smooth ones, dark ones. Each bound lies between the two.
LABEL_FLATNESS, LABEL_CHROMA = 0.4, 0.1  # label maps: shares of flat and of coloured pixels, at least
PEAKS, PEAK_RADIUS, PEAK_SHARE = 16, 3, 0.42  # so much of what is flat, beside the commonest colour, lies in peaks
DRAWING_FLATNESS, PAPER_SHARE = 0.8, 0.9  # drawings: of all pixels; of the flat ones, those of the paper
REACH, THIN_SHARE = 1 / 32, 0.7  # of the shorter side; of a drawing's other pixels have paper so near, on two sides

Color = tuple[int, int, int]
Pixels = NDArray[np.int16]  # (n, 3) in [0, 255]


@dataclass(frozen=True, eq=False)
class ColorSample:
    """Evenly spread pixels of one image."""

    pixels: Pixels
    flat: NDArray[np.bool_]  # (n,): whether the pixels to the right and below have nearly the same colour
    around: NDArray[np.int16]  # (n, 4, 3): the pixels a little farther below, above, to the right and to the left


@dataclass(frozen=True, eq=False)
class _Counts:
    """Different colours, and how many pixels have each."""

    values: Pixels
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, pixels: Pixels) -> _Counts:
        packed = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        values, counts = np.unique(packed, return_counts=True)
        return cls(np.stack([values >> 16, values >> 8 & 255, values & 255], axis=1).astype(np.int16), counts)

    def clusters(self, radius: int, most: int, least: float = 0.0) -> dict[Color, float]:
        """The commonest colour with all within `radius` of it, then the commonest of the others, …: their shares."""
        found: dict[Color, float] = {}
        total, values, counts = max(1, self.counts.sum()), self.values, self.counts
        while len(counts) and len(found) < most:
            center = values[counts.argmax()]
            near = np.abs(values - center).max(axis=1) <= radius
            share = float(counts[near].sum() / total)
            if share < least:
                break
            red, green, blue = (int(part) for part in center)
            found[red, green, blue] = share
            values, counts = values[~near], counts[~near]
        return found


def color_sample(image: Decoded, labels: bool) -> ColorSample | None:
    """Pixels of an 8-bit picture, gray or in colours; None for other images.

    Args:
        image: as read.
        labels: take the class values, as if they were shades of gray.
    """
    if labels:
        if not is_single(image):
            return None
        values = label_values(image)
    else:
        values = np.asarray(over_white(image)) if isinstance(image, Image.Image) else image.values
        if values.dtype != np.uint8:
            return None
    if values.shape[2] not in (1, 3) or min(values.shape[:2]) < 2:
        return None
    height, width = values.shape[0] - 1, values.shape[1] - 1
    step = max(1, int((height * width / PIXELS_PER_IMAGE) ** 0.5))
    rows, columns = np.arange(step // 2, height, step)[:, None], np.arange(step // 2, width, step)

    def moved(down: int, across: int) -> NDArray[np.int16]:
        found = values[(rows + down).clip(0, height), (columns + across).clip(0, width)].astype(np.int16)
        return np.broadcast_to(found, (*found.shape[:2], 3)).reshape(-1, 3)

    here, right, below = moved(0, 0), moved(0, 1), moved(1, 0)
    flat = np.maximum(np.abs(right - here), np.abs(below - here)).max(-1) <= FLAT_STEP
    reach = max(2, round(REACH * min(height, width)))
    around = [moved(*step) for step in ((reach, 0), (-reach, 0), (0, reach), (0, -reach))]
    return ColorSample(here, flat, np.stack(around, axis=1))


def class_colors(samples: Sequence[ColorSample | None]) -> dict[Color, float]:
    """The colours that the images of one side are made of, most frequent first, with their share of the pixels.

    Returns:
        Empty for photos, for gray label maps with loss, and where most samples are None.
    """
    known = [sample for sample in samples if sample is not None]
    if 2 * len(known) <= len(samples):
        return {}
    sample = ColorSample(*(np.concatenate([getattr(one, part.name) for one in known]) for part in fields(ColorSample)))
    everything, areas = _Counts.of(sample.pixels), _Counts.of(sample.pixels[sample.flat])
    if len(everything.counts) <= MOST_COLORS:
        found = _without_noise(everything.clusters(0, MOST_COLORS))
        found = _without_soft_edges(found) if _is_drawing(sample, areas) else found
    elif _are_labels(sample, areas):
        found = areas.clusters(COLOR_RADIUS, MOST_COLORS, LEAST_SHARE)
    elif _is_drawing(sample, areas):
        found = _without_soft_edges(everything.clusters(COLOR_RADIUS, MOST_COLORS, LEAST_SHARE))
    else:
        found = {}
    return dict(sorted(found.items(), key=lambda item: -item[1])) if len(found) > 1 else {}


def _without_noise(shares: Mapping[Color, float]) -> dict[Color, float]:
    """The colours, most frequent first, without those that a JPEG makes of a far more frequent one beside them."""
    kept: dict[Color, float] = {}
    for color, share in shares.items():
        near = (other for other in kept if _distance(color, other) <= PEAK_RADIUS and kept[other] >= NOISE * share)
        origin = next(near, color)
        kept[origin] = kept.get(origin, 0.0) + share
    return kept


def _are_labels(sample: ColorSample, areas: _Counts) -> bool:
    """Whether these are label maps in colours: flat nearly everywhere, in colours that are peaks."""
    chroma = sample.pixels.max(axis=1) - sample.pixels.min(axis=1)
    if sample.flat.mean() < LABEL_FLATNESS or (chroma > CHROMA).mean() < LABEL_CHROMA:
        return False
    shares = list(areas.clusters(PEAK_RADIUS, PEAKS).values())
    others = 1.0 - max(shares)
    return others > LEAST_SHARE and (sum(shares) - max(shares)) / others >= PEAK_SHARE


def _is_drawing(sample: ColorSample, areas: _Counts) -> bool:
    """Whether these are thin lines on plain paper."""
    if sample.flat.mean() < DRAWING_FLATNESS:
        return False
    ((paper, share),) = areas.clusters(PEAK_RADIUS, 1).items()
    lines = np.abs(sample.pixels - paper).max(axis=1) > COLOR_RADIUS
    if share < PAPER_SHARE or not lines.any():
        return False
    paper_near = (np.abs(sample.around[lines] - paper).max(axis=2) <= COLOR_RADIUS).sum(axis=1) >= 2
    return bool(paper_near.mean() >= THIN_SHARE)


def _without_soft_edges(shares: Mapping[Color, float]) -> dict[Color, float]:
    """The colours without mixtures of the first, which is the paper, and another."""
    paper, *lines = shares
    kept = [paper]
    for color in sorted(lines, key=lambda color: -_distance(color, paper)):
        if not any(_is_between(color, paper, other) for other in kept[1:]):
            kept.append(color)
    return {color: shares[color] for color in kept}


def _distance(color: Color, other: Color) -> int:
    return max(abs(a - b) for a, b in zip(color, other, strict=True))


def _is_between(color: Color, first: Color, last: Color) -> bool:
    """Whether `color` could be a mixture of the other two."""
    line, point = np.subtract(last, first), np.subtract(color, first)
    part = float(point @ line / (line @ line))
    return 0 <= part <= 1 and bool(np.abs(point - part * line).max() <= COLOR_RADIUS)


def palette_of(
    samples: Sequence[ColorSample | None], names: Mapping[Color, str], format: PixelFormat
) -> tuple[PaletteColor, ...]:
    """What a drawing tool offers for one side: its class colours by share, largest first; nothing for photos.

    Args:
        samples: of some of the side's images; with labels, of their class values.
        names: of classes by their colours, where they are known. All of them are offered then.
        format: of the side. With labels every class is offered, in the colour that it is shown in.
    """
    if format.mode == "labels":
        pixels = [sample.pixels for sample in samples if sample is not None]
        shares = _Counts.of(np.concatenate(pixels)).clusters(0, MOST_VALUES) if pixels else {}
        found = [(color, shares.get((v, v, v), 0.0)) for v, color in zip(format.classes, format.colors, strict=True)]
    else:
        shares = class_colors(samples)
        found = list((dict.fromkeys(names, 0.0) | shares if shares else shares).items())
    ordered = sorted(found, key=lambda item: -item[1])
    return tuple(PaletteColor(color, names.get(color), round(share, 4)) for color, share in ordered)
