"""Photos → sources: the line drawing, the gray, small or blurred picture, … that a model learns to make a photo of.

Data sets are made with it, and models that were trained on them make the source of a new photo with it.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pix2pix_hub.config import MakerOptions
from pix2pix_hub.image.read import Decoded, from_memory
from pix2pix_hub.util import UserError

LINE_SIGMA, WEAK, SHORTEST_LINE = 1.2, 0.4, 16  # pixels; of the threshold for the start of a line; pixels
PENCIL_SIGMA, PENCIL_LIFT, PENCIL_POWER = 3.0, 16.0, 1.5  # pixels; levels, so that the dark is not all noise; contrast
HOLE = (255, 0, 255)


def make_pair(photo: Decoded, maker: MakerOptions, name: str) -> tuple[Decoded, Decoded]:
    """Make the source of a photo, and the photo as the target: 8 bits, gray or RGB on white, no larger than is wanted.

    Args:
        photo: a picture of 8 bits.
        maker: how.
        name: what errors call the photo.

    Returns:
        Source and target, of one size.

    Raises:
        UserError: another depth, or a number of channels that no picture has.
    """
    if photo.values.dtype != np.uint8 or photo.kind == "channels":
        found = f"{photo.values.dtype} of {photo.values.shape[2]} channels"
        raise UserError(f"{name} is {found}; expected a photo: 8-bit gray, RGB or RGBA.")
    target = photo.over_white().convert("L" if photo.kind == "gray" else "RGB")
    scale = (maker.shorter_side or min(target.size)) / min(target.size)
    if scale < 1.0:
        width, height = (max(1, round(side * scale)) for side in target.size)
        target = target.resize((width, height), Image.Resampling.LANCZOS)
    return from_memory(_make(target, maker), name), from_memory(target, name)


def _make(photo: Image.Image, maker: MakerOptions) -> Image.Image:
    match maker.kind:
        case "edges":
            return _pencil(photo) if maker.style == "pencil" else _lines(photo)
        case "gray":
            return photo.convert("L")
        case "lowres":
            return _lowres(photo, maker)
        case "blur":
            return photo.filter(ImageFilter.GaussianBlur(maker.radius or 0.0))
        case "noise":
            return _with_noise(photo, maker.noise or 0.0, _random(photo, maker))
        case "mask":
            return _with_holes(photo, _random(photo, maker))
        case "palette":
            return photo.convert("RGB").quantize(maker.colors or 256, dither=Image.Dither.NONE).convert("RGB")


def _random(photo: Image.Image, maker: MakerOptions) -> np.random.Generator:
    """From the pixels, not the name: uploads and arrays have none, and are given the source that was trained on."""
    return np.random.default_rng([maker.seed or 0, zlib.crc32(photo.tobytes())])


def _lines(photo: Image.Image) -> Image.Image:
    """Black lines of two pixels on white, by Canny's detector, whose threshold tells the photo's own edges from the
    rest (Otsu). Square roots of the gray values: lines in the dark count as much to the eye."""
    from skimage import feature, filters, morphology  # half a second to import

    gray = np.sqrt(np.asarray(photo.convert("L"), np.float32) / 255.0)
    strong = filters.threshold_otsu(_slope(filters.gaussian(gray, LINE_SIGMA, mode="nearest")))
    lines = feature.canny(gray, LINE_SIGMA, WEAK * strong, strong, mode="nearest")
    lines = morphology.remove_small_objects(lines, max_size=SHORTEST_LINE, connectivity=2)
    lines = morphology.dilation(lines, np.ones((2, 2), bool))
    return Image.fromarray(np.where(lines, 0, 255).astype(np.uint8))


def _slope(values: NDArray[Any]) -> NDArray[Any]:
    """The gradient's size as Canny's detector has it."""
    from scipy import ndimage

    return np.hypot(ndimage.sobel(values, axis=0), ndimage.sobel(values, axis=1))


def _pencil(photo: Image.Image) -> Image.Image:
    """The photo divided by itself out of focus: white where nothing changes, shades along the dark sides of edges."""
    from skimage import filters

    gray = np.asarray(photo.convert("L"), np.float32) + PENCIL_LIFT
    shades = gray / filters.gaussian(gray, PENCIL_SIGMA, mode="nearest", preserve_range=True)
    return Image.fromarray((shades.clip(0.0, 1.0) ** PENCIL_POWER * 255.0).round().astype(np.uint8))


def _lowres(photo: Image.Image, maker: MakerOptions) -> Image.Image:
    """Means over squares; then noise and JPEG as a camera adds them; then bicubic."""
    assert maker.factor is not None
    small = photo.reduce(maker.factor)
    if maker.noise:
        small = _with_noise(small, maker.noise, _random(photo, maker))
    if maker.jpeg_quality is not None:
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=maker.jpeg_quality)
        small = Image.open(buffer, formats=("JPEG",))
    inside = (0, 0, photo.width / maker.factor, photo.height / maker.factor)  # the last squares may be cut off
    return small.resize(photo.size, Image.Resampling.BICUBIC, inside)


def _with_noise(photo: Image.Image, deviation: float, random: np.random.Generator) -> Image.Image:
    pixels = np.asarray(photo)
    noisy = pixels + deviation * random.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def _with_holes(photo: Image.Image, random: np.random.Generator) -> Image.Image:
    """One to three boxes and as many strokes, each some fractions of the picture's sides, in a colour of their own."""
    picture = photo.convert("RGB")
    draw, size = ImageDraw.Draw(picture), np.array(picture.size)
    for _ in range(random.integers(1, 4)):
        extent = random.uniform(1 / 8, 1 / 3, 2)
        corner = random.uniform(0.0, 1.0 - extent)
        draw.rectangle([*(corner * size), *((corner + extent) * size)], HOLE)
    for _ in range(random.integers(1, 4)):
        points = [tuple(point) for point in random.uniform(0.0, 1.0, (4, 2)) * size]
        draw.line(points, HOLE, max(1, round(random.uniform(1 / 24, 1 / 12) * min(picture.size))), "curve")
    return picture
