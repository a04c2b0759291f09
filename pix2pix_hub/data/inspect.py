"""A look at a data set before training: what it is, how it is stored, and whether direction and registration are right.

pix2pix-hub data inspect path/to/pairs --direction BtoA
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pix2pix_hub.data.bad_pairs import LISTED_FAULTS, Fault
from pix2pix_hub.data.examine import Facts, facts_of, settle_formats
from pix2pix_hub.data.pair_dataset import PairDataset
from pix2pix_hub.data.pairs import find_pairs
from pix2pix_hub.data.records import RecordDecoder
from pix2pix_hub.data.request import PairRequest
from pix2pix_hub.data.transforms import PairTransform
from pix2pix_hub.errors import UserError
from pix2pix_hub.images import PixelFormat, displayed, save_grid, to_model_range

COLOR_RADIUS = 20  # largest difference in any of R, G, B of what counts as one colour: JPEG noise stays inside
FLAT_STEP = 10  # largest such difference between neighbours in a flat area
LEAST_FLATNESS = 0.5  # of a label map's pixels, which may be half outlines
COLORS_PER_IMAGE, LABEL_SHARE = 12, 0.96  # so many colours make up so much of each label map's flat areas
MOST_COLORS, LEAST_COLOR_SHARE = 40, 0.002
COLOR_PAIRS, PIXELS_PER_IMAGE = 40, 4096  # looked at for colours

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Inspection:
    """What a look at all pairs of all splits found."""

    form: str
    layout: str  # "right half → left half", "source → target"
    counts: dict[str, int]  # split → pairs, bad ones included
    sizes: Counter[str]  # "256x512" (height x width) → pairs
    formats: dict[str, PixelFormat]  # "source", "target"
    colors: dict[str, dict[Color, float]]  # side → class colours and their share of the pixels; empty for photos
    faults: tuple[Fault, ...]

    def describe(self) -> str:
        """Several lines for a person."""
        counts = ", ".join(f"{count} {split}" for split, count in self.counts.items())
        sizes = ", ".join(f"{size} ({count})" for size, count in self.sizes.most_common(5))
        more = f", and {len(self.sizes) - 5} more" if len(self.sizes) > 5 else ""
        lines = [
            f"form       {self.form}: {counts}",
            f"direction  {self.layout}",
            f"sizes      {sizes}{more} (height x width, pairs)",
        ]
        for side, stored in self.formats.items():
            lines += [f"{side}     {stored.describe()}, {_looks(self.colors[side])}", *_color_lines(self.colors[side])]
        lines.append(f"bad pairs  {len(self.faults) or 'none'}")
        return "\n".join(lines + [f"           {fault.reason}" for fault in self.faults[:LISTED_FAULTS]])


def inspect_pairs(request: PairRequest, grid: Path | None = None, rows: int = 6) -> Inspection:
    """Decode every pair of every split once, and draw the first few.

    Args:
        request: which pairs; `image_size` is the size they are drawn at.
        grid: where to write a picture of `rows` rows: source | target | both laid over each other; None: nowhere.

    Raises:
        UserError: no form fits, or not a single pair is sound.
    """
    found = find_pairs(request)
    decoder = RecordDecoder(found.columns, request.swap)
    parts = [PairDataset(rows, range(len(rows)), decoder, split) for split, rows in found.splits.items()]
    keys = [(part, index) for part in parts for index in range(len(part))]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        seen = list(pool.map(lambda key: facts_of(key[0], key[1], request), keys))
    sound = [(key, facts) for key, facts in zip(keys, seen, strict=True) if isinstance(facts, Facts)]
    if not sound:
        reasons = "; ".join(fault.reason for fault in seen[:3] if isinstance(fault, Fault))
        raise UserError(f"{request.dataset}: none of its {len(keys)} pairs can be read. {reasons}")
    source, target = settle_formats([facts for _, facts in sound], request)
    pairs = [_decoded(part, index, source, target) for (part, index), _ in _spread(sound, COLOR_PAIRS)]
    if grid is not None:
        _draw(pairs[:: max(1, len(pairs) // rows)][:rows], request, {"source": source, "target": target}, grid)
    layout = ("left half", "right half") if len(found.columns) == 1 else found.columns
    shown = tuple(reversed(layout)) if request.swap else layout
    return Inspection(
        found.form,
        f"{request.direction}: {shown[0]} → {shown[1]}",
        {part.split: len(part) for part in parts},
        Counter(f"{height}x{width}" for height, width in (facts.size for _, facts in sound)),
        {"source": source, "target": target},
        {side: class_colors([pair[place] for pair in pairs]) for place, side in enumerate(("source", "target"))},
        tuple(fault for fault in seen if isinstance(fault, Fault)),
    )


def class_colors(images: list[Tensor]) -> dict[Color, float]:
    """The colours a label map (or edge drawing) is made of, most frequent first, with their share of its flat areas.

    A label map is flat nearly everywhere, in a few colours, even as a JPEG; a photo is not.

    Args:
        images: uint8 (3, H, W) in [0, 255]; others have no colours.

    Returns:
        Empty for photos.
    """
    if any(image.shape[0] != 3 or image.dtype.is_floating_point for image in images):
        return {}
    arrays = [image.permute(1, 2, 0).numpy().astype(np.int16) for image in images]
    flat = [array[_is_flat(array)] for array in arrays]
    flatness = np.mean([len(pixels) / (array.size // 3) for pixels, array in zip(flat, arrays, strict=True)])
    if flatness < LEAST_FLATNESS or np.mean([_share_of_commonest(pixels) for pixels in flat]) < LABEL_SHARE:
        return {}
    colors = _clusters(np.concatenate([_some(pixels) for pixels in flat]))
    if len(colors) > 1:
        return colors
    return _clusters(np.concatenate([_some(array.reshape(-1, 3)) for array in arrays]))  # lines are flat nowhere


def _is_flat(image: NDArray[np.int16]) -> NDArray[np.bool_]:
    """(H, W, 3) → (H, W): whether the pixels to the right and below have nearly the same colour."""
    flat = np.ones(image.shape[:2], dtype=bool)
    flat[:, :-1] &= np.abs(np.diff(image, axis=1)).max(-1) <= FLAT_STEP
    flat[:-1] &= np.abs(np.diff(image, axis=0)).max(-1) <= FLAT_STEP
    return flat


def _share_of_commonest(pixels: NDArray[np.int16]) -> float:
    """Of (n, 3) pixels of one image, in steps of 16."""
    _, counts = np.unique((pixels + 8) >> 4, axis=0, return_counts=True)
    return float(np.sort(counts)[::-1][:COLORS_PER_IMAGE].sum() / max(1, len(pixels)))


def _clusters(pixels: NDArray[np.int16]) -> dict[Color, float]:
    """Colours of (n, 3) pixels, most frequent first: what lies within `COLOR_RADIUS` of one is that one."""
    found: dict[Color, float] = {}
    left = pixels
    while len(left) and len(found) < MOST_COLORS:
        values, counts = np.unique(left >> 3, axis=0, return_counts=True)
        center = np.median(left[(left >> 3 == values[counts.argmax()]).all(axis=1)], axis=0)
        near = np.abs(left - center).max(axis=1) <= COLOR_RADIUS
        if near.sum() < LEAST_COLOR_SHARE * len(pixels):
            break
        red, green, blue = (int(part) for part in center)
        found[red, green, blue] = float(near.sum()) / len(pixels)
        left = left[~near]
    return found


def _some(pixels: NDArray[np.int16]) -> NDArray[np.int16]:
    """Evenly spread ones of (n, 3)."""
    return pixels[:: max(1, len(pixels) // PIXELS_PER_IMAGE)]


def _spread(items: list[Any], count: int) -> list[Any]:
    """At most `count` of `items`, evenly spread."""
    return items[:: max(1, -(-len(items) // count))]


def _decoded(pairs: PairDataset, index: int, source: PixelFormat, target: PixelFormat) -> tuple[Tensor, Tensor]:
    decoder = pairs.decoder.with_formats(source, target)
    return decoder.decode(pairs.row(index), pairs.name(index))


def _draw(
    pairs: list[tuple[Tensor, Tensor]], request: PairRequest, formats: dict[str, PixelFormat], path: Path
) -> None:
    """Rows of source | target | half of each, in which edges that do not meet are seen at once."""
    fit = PairTransform(request.image_size, augment=False, resize="pad", formats=formats)
    rows = []
    for source, target in pairs:
        pair = fit(source, target, epoch=0, index=0)
        shown = [to_model_range(displayed(pair[side], formats[side])) for side in ("source", "target")]
        rows.append((*shown, (shown[0] + shown[1]) / 2.0))
    save_grid(rows, path)


def _looks(colors: dict[Color, float]) -> str:
    if not colors:
        return "many colours: a photo"
    return f"{len(colors)} colours: labels or a drawing"


def _color_lines(colors: dict[Color, float]) -> list[str]:
    cells = [f"#{red:02x}{green:02x}{blue:02x} {share:5.1%}" for (red, green, blue), share in colors.items()]
    return ["           " + "   ".join(cells[start : start + 4]) for start in range(0, len(cells), 4)]
