"""Pictures on their way to and from the page: drawings, thumbnails, heat maps, files to download."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pix2pix_hub.image.read import eight_bit, from_memory
from pix2pix_hub.image.write import encode, suffix_for
from pix2pix_hub.ui.exports import Color, Side
from pix2pix_hub.util import UserError

DATA_URL = "data:image/png;base64,"
MAX_DRAWING_SIDE = 4096  # pixels
SHOWN_SIDE = 1024  # pixels of the longer side of what the page shows
SMALL_SIDE = 512  # smaller pictures are enlarged to this by whole factors
EXACT = 24  # a drawn colour this near to one of the palette (in each channel) is that one
REAL, FAKE = (0, 114, 178), (213, 94, 0)  # blue and vermilion: told apart by everybody
HEAT_OPACITY = 0.6

Picture = Image.Image | NDArray[Any]
"""As the pipeline gives and takes it: an array `(H, W[, C])` where Pillow has no mode."""


def decode_drawing(data_url: Any) -> Image.Image:
    """The drawing surface's value → an RGB picture.

    Raises:
        UserError: it is no PNG data URL of a reasonable size.
    """
    if not (isinstance(data_url, str) and data_url.startswith(DATA_URL)):
        raise UserError("the drawing came in a form that is not read here: expected a PNG data URL.")
    try:
        data = base64.b64decode(data_url.removeprefix(DATA_URL), validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if max(picture.size) > MAX_DRAWING_SIDE:
                raise UserError(f"the drawing has a side of over {MAX_DRAWING_SIDE} pixels.")
            return picture.convert("RGB")
    except UserError:
        raise
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError("the drawing could not be read: it is damaged.") from error


def encode_drawing(picture: Image.Image) -> str:
    """The reverse."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return DATA_URL + base64.b64encode(buffer.getvalue()).decode()


def as_stored(picture: Image.Image, side: Side, size: tuple[int, int]) -> Picture:
    """An RGB picture → as a side's images are stored: in their colours only; where they are classes, `(H, W)` values.

    Args:
        picture: a drawing, or one of `samples.png`.
        side: source or target of an export.
        size: width and height to give it.
    """
    exact = bool(side.paints)
    picture = picture.convert("RGB")
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.NEAREST if exact else Image.Resampling.LANCZOS)
    if not exact:
        return picture
    palette = [paint.color for paint in side.paints]
    nearest = nearest_paints(np.asarray(picture), palette)
    if side.class_values:
        return np.array(side.class_values, np.uint8)[nearest]
    return Image.fromarray(np.array(palette, np.uint8)[nearest])


def in_colors(stored: Picture, side: Side) -> Image.Image:
    """What `as_stored` gave, as a file can hold it: values of classes as a palette image in the classes' colours."""
    if isinstance(stored, Image.Image):
        return stored
    picture, table = Image.fromarray(stored), [0] * 768
    for value, paint in zip(side.class_values, side.paints, strict=False):  # no more than MAX_PALETTE are painted with
        table[3 * value : 3 * value + 3] = paint.color
    picture.putpalette(table)
    return picture


def nearest_paints(pixels: NDArray[np.uint8], palette: Sequence[Color]) -> NDArray[np.intp]:
    """For each pixel of `(H, W, 3)` the number of its colour in the palette.

    Pixels that are near none, as on the smoothed borders of strokes, take the colour of the nearest pixel that is:
    between two colours there may lie a third, which nobody painted.
    """
    differences = np.abs(pixels[:, :, None].astype(np.int16) - np.array(palette, np.int16)).max(axis=3)  # (H, W, P)
    chosen = differences.argmin(axis=2)
    known = differences.min(axis=2) <= EXACT
    if not known.any():
        return chosen
    while not known.all():
        spread = known.copy()
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            from_there = np.roll(known, step, axis)
            border = [slice(None), slice(None)]
            border[axis] = slice(0, 1) if step == 1 else slice(-1, None)
            from_there[tuple(border)] = False  # what was rolled round the edge
            taken = from_there & ~spread
            chosen[taken] = np.roll(chosen, step, axis)[taken]
            spread |= taken
        known = spread
    return chosen


def shown(picture: Picture, *, exact: bool = False) -> Image.Image:
    """Any result → an 8-bit RGB picture for the page, neither tiny nor huge.

    Args:
        picture: a PIL image of any mode, or an array `(H, W[, C])` as the pipeline gives it.
        exact: keep colours where it is enlarged (label maps).
    """
    small = picture.copy() if isinstance(picture, Image.Image) and picture.mode == "RGB" else eight_bit(picture)
    longer = max(small.size)
    if longer > SHOWN_SIDE:
        small.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    elif longer * 2 <= SMALL_SIDE:
        factor = SMALL_SIDE // longer
        method = Image.Resampling.NEAREST if exact else Image.Resampling.BICUBIC
        small = small.resize((small.width * factor, small.height * factor), method)
    return small


def save_result(picture: Picture, folder: Path, stem: str) -> Path:
    """Write a result at its full depth: PNG where PNG can hold it, else TIFF. Returns the file."""
    decoded = from_memory(picture, "the result", {1: "gray", 3: "rgb", 4: "rgba"})
    path = folder / f"{stem}{suffix_for(decoded)}"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(decoded, path.name, path.suffix))
    return path


def heat_map(picture: Image.Image, realism: NDArray[np.float32]) -> Image.Image:
    """Lay `(h, w)` in [0, 1] over a picture: blue where it looks real, vermilion where it looks made."""
    weight = Image.fromarray(realism.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    real = np.clip(np.asarray(weight), 0.0, 1.0)[:, :, None]
    tint = real * np.array(REAL) + (1.0 - real) * np.array(FAKE)
    opacity = HEAT_OPACITY * np.abs(2.0 * real - 1.0)  # undecided: the picture itself
    blended = (1.0 - opacity) * np.asarray(picture.convert("RGB")) + opacity * tint
    return Image.fromarray(blended.round().astype(np.uint8))
