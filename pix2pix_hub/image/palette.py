"""The few colours that label maps are made of, which a drawing tool offers; photos have none.

Files without loss (PNG) simply hold few. JPEG and scaling blur them, so there the flat areas are looked at, where the
colours of a label map stand out as narrow peaks and those of a photo run into each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pix2pix_hub.image.format import PaletteColor, PixelFormat
from pix2pix_hub.image.read import Decoded

SAMPLED_PAIRS, PIXELS_PER_IMAGE = 40, 4096  # looked at
MOST_COLORS, LEAST_SHARE = 40, 0.002  # of the pixels, for a colour that is no noise
COLOR_RADIUS = 20  # largest difference in any of R, G, B of what counts as one colour: JPEG noise stays inside
FLAT_STEP = 10  # largest such difference between neighbours in a flat area
NOISE = 20  # times as frequent as what noise makes of it
CHROMA = 16  # largest difference between R, G and B of what counts as gray

# Measured on label maps as PNG, JPEG (quality 50 and 75) and scaled, and on photos: in colour or gray, on a plain
# background, smooth ones, dark ones. Each bound lies between the two.
LABEL_FLATNESS, LABEL_CHROMA = 0.4, 0.1  # label maps: shares of flat and of coloured pixels, at least
PEAKS, PEAK_RADIUS, PEAK_SHARE = 16, 3, 0.42  # so much of what is flat, beside the commonest colour, lies in peaks

RARE = 0.02  # of the images: in fewer a class hardly occurs
RARE_AREA = 0.02  # of what is flat in one image: noise makes up less (0.006), where it is in few images

PACKED = np.array([1 << 16, 1 << 8, 1], np.int32)  # a colour as one number is its product with this
Color = tuple[int, int, int]
# (n, 4), of pixels: R, G, B in [0, 255], and whether the pixels to the right and below are nearly the same
ColorSample = NDArray[np.int16]


def color_sample(image: Decoded, labels: bool) -> ColorSample | None:
    """Evenly spread pixels of an 8-bit picture, gray or in colours; None for other images.

    Args:
        image: as read.
        labels: take the class values, as if they were shades of gray.
    """
    values = image.labels if labels else None
    if not labels and image.values.dtype == np.uint8 and image.kind != "channels":
        values = np.asarray(image.over_white())
    if values is None or min(values.shape[:2]) < 2:
        return None
    height, width = values.shape[0] - 1, values.shape[1] - 1
    step = max(1, int((height * width / PIXELS_PER_IMAGE) ** 0.5))
    rows, columns = np.arange(step // 2, height, step)[:, None], np.arange(step // 2, width, step)
    moved = [values[rows + down, columns + across].astype(np.int16) for down, across in ((0, 0), (0, 1), (1, 0))]
    here, right, below = (np.broadcast_to(each, (rows.size, columns.size, 3)).reshape(-1, 3) for each in moved)
    flat = np.maximum(np.abs(right - here), np.abs(below - here)).max(-1) <= FLAT_STEP
    return np.column_stack([here, flat])


def class_colors(samples: Sequence[ColorSample | None]) -> dict[Color, float]:
    """The colours that the images of one side are made of, most frequent first, with their share of the pixels.

    Returns:
        Empty for photos, for gray label maps with loss, and where most samples are None.
    """
    known = [sample for sample in samples if sample is not None]
    if 2 * len(known) <= len(samples):
        return {}
    sampled = np.concatenate(known)
    pixels, flat = sampled[:, :3], sampled[:, 3] > 0
    everything = _clusters(pixels, 0, MOST_COLORS + 1)
    found: dict[Color, float] = {}
    if len(everything) <= MOST_COLORS:
        for color, share in everything.items():  # a rare one beside a far more frequent one is JPEG's noise on that
            frequent = (other for other in found if found[other] >= NOISE * share)
            origin = next((o for o in frequent if np.abs(np.subtract(color, o)).max() <= PEAK_RADIUS), color)
            found[origin] = found.get(origin, 0.0) + share
    elif _are_labels(pixels, flat):
        found = _clusters(pixels[flat], COLOR_RADIUS, MOST_COLORS, LEAST_SHARE)
    return dict(sorted(found.items(), key=lambda item: -item[1])) if len(found) > 1 else {}


def _are_labels(pixels: NDArray[np.int16], flat: NDArray[np.bool_]) -> bool:
    """Tell label maps in colours by their being flat nearly everywhere, in colours that are peaks."""
    chroma = pixels.max(axis=1) - pixels.min(axis=1)
    if flat.mean() < LABEL_FLATNESS or (chroma > CHROMA).mean() < LABEL_CHROMA:
        return False
    shares = list(_clusters(pixels[flat], PEAK_RADIUS, PEAKS).values())
    others = 1.0 - max(shares)
    return others > LEAST_SHARE and (sum(shares) - max(shares)) / others >= PEAK_SHARE


def _clusters(pixels: NDArray[np.int16], radius: int, most: int, least: float = 0.0) -> dict[Color, float]:
    """The commonest colour with all within `radius` of it, then the commonest of the others, …: their shares."""
    packed, counts = np.unique(pixels.astype(np.int32) @ PACKED, return_counts=True)
    values = _unpacked(packed)
    found: dict[Color, float] = {}
    total = max(1, counts.sum())
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


# Of an image's pixels, so many have none of a palette's colours: it is a photo. Small JPEG label maps reach 0.6.
MOST_OTHERS = 0.75


def share_of_others(image: NDArray[np.uint8], palette: Sequence[PaletteColor]) -> float:
    """Share of the pixels of an 8-bit `(C, H, W)`, gray or RGB, that have none of the palette's colours; JPEG's noise
    is let pass."""
    step = max(1, int((image.shape[1] * image.shape[2] / PIXELS_PER_IMAGE) ** 0.5))
    pixels = np.broadcast_to(image[:3, ::step, ::step], (3, *image[0, ::step, ::step].shape)).reshape(3, 1, -1)
    colors = np.array([entry.color for entry in palette], np.int16).T[:, :, None]  # (3, colours, 1)
    return float((np.abs(pixels.astype(np.int16) - colors).max(axis=0).min(axis=0) > COLOR_RADIUS).mean())


def rare_colors(
    samples: Sequence[ColorSample | None], counting: Sequence[bool], format: PixelFormat
) -> dict[Color, int]:
    """Colours of classes (of label maps by their values: the format's colours) that hardly any image shows.

    Args:
        samples: of some of a side's images.
        counting: which of them count; the others only tell that there is such a class.
        format: of the side, with its palette.

    Returns:
        In how many of those that count they are.
    """
    known = [(sample, counts) for sample, counts in zip(samples, counting, strict=True) if sample is not None]
    images = np.repeat(np.arange(len(known)), [len(sample) for sample, _ in known])
    sampled = np.concatenate([sample for sample, _ in known])
    pixels, flat = sampled[:, :3], sampled[:, 3] > 0
    classes = {entry.color: entry.color for entry in format.palette if not _is_noise(entry, format.palette)}
    radius = 0
    if format.mode == "labels":
        classes = {color: (value,) * 3 for value, color in zip(format.classes, format.colors, strict=True)}
    elif len(_clusters(pixels, 0, MOST_COLORS + 1)) > MOST_COLORS:
        radius = COLOR_RADIUS
        classes |= {color: color for color in _clusters(pixels[flat], radius, MOST_COLORS)}
    rare: dict[Color, int] = {}
    distinct, numbers = np.unique(pixels.astype(np.int32) @ PACKED, return_inverse=True)
    here, flats = np.array([counts for _, counts in known]), np.bincount(images[flat], minlength=len(known)) + 1
    for color, value in classes.items():
        near = (np.abs(_unpacked(distinct) - np.array(value, np.int16)).max(axis=1) <= radius)[numbers]
        areas = np.bincount(images[near & flat], minlength=len(known)) / flats
        shown = areas > LEAST_SHARE if radius else np.bincount(images[near], minlength=len(known)) > 0
        if shown[here].sum() < RARE * here.sum() and (not radius or areas.max() > RARE_AREA):
            rare[color] = int(shown[here].sum())
    return rare


def _is_noise(entry: PaletteColor, palette: Sequence[PaletteColor]) -> bool:
    """Whether a colour is what JPEG makes of a far more frequent one."""
    frequent = (other.color for other in palette if other.share > NOISE * entry.share)
    return entry.name is None and any(
        np.abs(np.subtract(color, entry.color)).max() <= COLOR_RADIUS for color in frequent
    )


def _unpacked(packed: NDArray[np.int32]) -> NDArray[np.int16]:
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1).astype(np.int16)


def palette_of(
    samples: Sequence[ColorSample | None], names: Mapping[Color, str], format: PixelFormat
) -> tuple[PaletteColor, ...]:
    """List the class colours of one side for a drawing tool, by share, largest first; none for photos.

    Args:
        samples: of some of the side's images; with labels, of their class values.
        names: of classes by their colours, where they are known. All of them are offered then.
        format: of the side. With labels every class is offered, in the colour that it is shown in.
    """
    if format.mode == "labels":
        pixels = [sample[:, :3] for sample in samples if sample is not None]
        shares = _clusters(np.concatenate(pixels), 0, len(format.classes)) if pixels else {}
        found = [(color, shares.get((v, v, v), 0.0)) for v, color in zip(format.classes, format.colors, strict=True)]
    else:
        shares = class_colors(samples)
        found = list((dict.fromkeys(names, 0.0) | shares if shares else shares).items())
    ordered = sorted(found, key=lambda item: -item[1])
    return tuple(PaletteColor(color, names.get(color), round(share, 4)) for color, share in ordered)
