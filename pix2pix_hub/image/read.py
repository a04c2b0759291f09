"""Image files of any kind → pixels as stored, and bounds on what their headers may ask for.

The first bytes say what a file is, not its name:

    8-bit PNG, JPEG, WebP, BMP, GIF, TIFF of one page     read by Pillow
    16-bit PNG of any colour type                         through Pillow in two halves (it cuts colours to 8 bits)
    .npy of shape (H, W) or (H, W, C)                     never unpickled
    TIFF of several pages or bands, 16 bits, floats       `tiff.py`

A header costs its writer nothing, and Pillow believes it: one that names a part of the file a thousand times is given
a thousand copies of it. Here a file is walked first, so that time and memory follow from its size and its pixels.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import MARKER

from pix2pix_hub.image.tiff import MAX_CHANNELS, TIFF_MAGIC, check_exif, directories, image_pages, read_bands
from pix2pix_hub.util import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # as Pillow calls them; it knows others, and starts programs
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_DECODED_BYTES = psutil.virtual_memory().total // 4  # of one image
MAX_PARTS = 2**16  # chunks or segments of a file
MAX_SCANS = 100  # of a progressive JPEG, each of which is a pass over all pixels
MAX_JUNK = 2**16  # bytes between the segments of a JPEG
MAX_LEAD = 2**20  # bytes before the picture of a GIF
MAX_RUN_LENGTH_SIDE = 2048  # pixels, of a BMP that Pillow unpacks byte by byte
PICTURE_MODES = {"gray": 1, "rgb": 3, "rgba": 4}  # and their channels
FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}  # largest value of a picture of that type
ROWS = 256  # of a large image that are converted at a time
EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
KINDS = {1: "gray", 3: "rgb"}  # of an array, by its channels; of any other number "channels"
PICTURE_KINDS = {1: "gray", 2: "gray", 3: "rgb", 4: "rgba"}  # where it is known to be a picture

_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image as stored, upright."""

    values: NDArray[Any]  # (H, W, C) of uint8, uint16 or float32; perhaps read-only
    kind: str  # "gray" and, where C is 2, alpha; "rgb"; "rgba"; "channels": any others
    palette: NDArray[np.uint8] | None = None  # (n, 3 or 4): its colours, RGB or RGBA as `kind`; C is 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def labels(self) -> NDArray[Any] | None:
        """`(H, W, 1)` of class values: palette indices or gray values; None: it has several channels."""
        return self.values[:, :, :1] if self.palette is not None or self.kind == "gray" else None

    def halves(self) -> tuple[Decoded, Decoded]:
        """The left and the right one; the width must be even."""
        left, right = (replace(self, values=half) for half in np.split(self.values, 2, axis=1))
        return left, right

    def half(self, side: str, name: str) -> Decoded:
        """The "left" or the "right" one alone.

        Raises:
            UserError: `name` has an odd width.
        """
        if (width := self.size[1]) % 2:
            raise UserError(f"{name} is {width} pixels wide; expected an even width, to take its {side} half.")
        return self.halves()[side == "right"]

    def picture(self) -> Image.Image | NDArray[Any]:
        """A PIL image, or where Pillow has no mode the array `(H, W)` or `(H, W, C)`."""
        channels = self.values.shape[2]
        flat = self.values[:, :, 0] if channels == 1 else self.values
        if self.kind == "channels" or (self.values.dtype != np.uint8 and channels > 1):
            return flat
        image = Image.fromarray(np.ascontiguousarray(flat))
        if self.palette is not None:
            image.putpalette(self.palette.tobytes(), "RGBA" if self.palette.shape[1] == 4 else "RGB")
        return image

    def convert(self, mode: str) -> Image.Image:
        """An 8-bit picture in another of Pillow's modes."""
        image = self.picture()
        assert isinstance(image, Image.Image), "8 bits expected"
        return image.convert(mode)

    def over_white(self) -> Image.Image:
        """RGB of an 8-bit picture; where it is transparent, white shows."""
        if self.kind != "rgba" and self.values.shape[2] != 2:
            return self.convert("RGB")
        image = self.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")

    def eight_bit(self) -> Image.Image:
        """RGB for the eye: 16 bits lose their lower half, floats go from the smallest to the largest value, and of many
        channels the first (three) are shown."""
        values = self.values
        if values.dtype == np.uint8 and self.kind != "channels":
            return self.over_white()
        if values.dtype == np.uint16:
            values = values >> 8
        elif values.dtype != np.uint8:
            low, high = float(values.min()), float(values.max())
            values = (values - low) / max(high - low, 1e-12) * 255.0
        planes = values[:, :, :3] if values.shape[2] >= 3 else values[:, :, 0]
        return Image.fromarray(planes.astype(np.uint8)).convert("RGB")


# -------------------------------------------------------------------------------------------------------- reading


def read_image(content: str | Path | bytes, name: str) -> Decoded:
    """A file or its bytes → pixels as stored.

    Raises:
        UserError: missing, empty, damaged, no image, larger than Pillow's `MAX_IMAGE_PIXELS` or a quarter of the
            machine's memory, or of a kind of number that is not read; the text starts with `name`.
    """
    data = read_bytes(content, name)
    with _damage_named(name):
        if data.startswith(b"\x93NUMPY"):
            return from_memory(_read_npy(data, name), name)
        if data.startswith(PNG_MAGIC) and data[24:25] == b"\x10" and data[25:26] in b"\2\4\6":
            return _read_deep_png(data, name)
        if data.startswith(TIFF_MAGIC):
            pages = image_pages(data, name)
            page, channels = pages[0], pages[0].samples * len(pages)
            refuse_too_large(page.height, page.width, name, bytes_per_pixel=channels * math.ceil(page.bits / 8))
            if len(pages) > 1 or not page.pillow_reads:
                return from_memory(read_bands(pages, data, name), name)
        return from_memory(open_image(data, name), name)


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """Damaged headers, pixels, EXIF blocks and palettes raise almost anything: make a `UserError` of it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name} is damaged or truncated ({error}).") from error


def from_memory(image: Image.Image | NDArray[Any], name: str, kinds: Mapping[int, str] = KINDS) -> Decoded:
    """An image that is open already, or an array `(H, W)` or `(H, W, C)` of any real numbers, as `read_image` gives it.

    Booleans become 0 and 255; integers of other kinds than uint8 and uint16, and doubles, become float32.

    Args:
        image: from wherever.
        name: what errors call it.
        kinds: an array's, by its number of channels; others are "channels".

    Raises:
        UserError: another shape, numbers that are not read, or a file behind a lazy PIL image that is damaged.
    """
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise UserError(f"{name} has no pixels (it is {image.height}x{image.width}, height x width).")
        with _damage_named(name):
            image.load()
            upright = ImageOps.exif_transpose(image)
            if image.mode in EIGHT_BIT_MODES:
                return _from_picture(upright)
            array = np.asarray(upright)
            if image.mode == "I" and array.min() >= 0 and array.max() <= 65535:  # so Pillow opens some 16-bit files
                array = array.astype(np.uint16)
    else:
        array = image
    shape = "x".join(map(str, array.shape))
    if 0 in array.shape:
        raise UserError(f"{name} has no pixels (its shape is {shape}).")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] > MAX_CHANNELS):
        raise UserError(f"{name} has shape {shape}; expected (H, W) or (H, W, C) with up to {MAX_CHANNELS} channels.")
    if array.dtype.kind not in "buif":
        raise UserError(f"{name} holds {array.dtype}; expected uint8, uint16 or float numbers.")
    refuse_too_large(array.shape[0], array.shape[1], name)
    native = array.dtype.newbyteorder("=")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif native in (np.uint8, np.uint16):
        array = np.ascontiguousarray(array, native)
    else:
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(array).all():
            raise UserError(f"{name} holds NaN, infinite or too large numbers.")
    array = array[:, :, None] if array.ndim == 2 else array
    return Decoded(array, kinds.get(array.shape[2], "channels"))


def _from_picture(image: Image.Image) -> Decoded:
    """A PIL image of any 8-bit mode → gray, RGB or indices of a palette, with alpha where it is transparent."""
    hidden = image.info.get("transparency")
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        if hidden is not None:  # the number of one entry, or the alpha of the first ones
            alpha = np.full((len(palette), 1), 255, np.uint8)
            if isinstance(hidden, int):
                alpha[hidden : hidden + 1] = 0
            else:
                alpha[: len(hidden), 0] = np.frombuffer(hidden, np.uint8)[: len(alpha)]
            palette = np.concatenate([palette, alpha], axis=1)
        return Decoded(np.asarray(image)[:, :, None], "rgb" if hidden is None else "rgba", palette)
    transparent = hidden is not None or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    wanted = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    mode = wanted + "A" * transparent
    values = np.asarray(image if image.mode == mode else image.convert(mode))
    return Decoded(values.reshape(image.height, image.width, -1), "gray" if wanted == "L" else mode.lower())


def _read_npy(data: bytes, name: str) -> NDArray[Any]:
    """The array of a .npy file. Its header is believed only as far as the bytes reach; pickles are refused."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise UserError(f"{name} holds Python objects, which are never loaded; expected numbers.")
    if min(shape, default=0) < 0:
        raise UserError(f"{name} is damaged: its shape is {'x'.join(map(str, shape))}.")
    expected, present = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if present < expected:
        raise UserError(f"{name} is damaged or truncated ({present} of {expected} bytes of pixels).")
    array = np.frombuffer(data, dtype, math.prod(shape), stream.tell())
    return array.reshape(shape, order="F" if fortran else "C")


def _read_deep_png(data: bytes, name: str) -> Decoded:
    """16-bit PNG with colours or alpha, of which Pillow unpacks the high bytes, then the low ones."""
    if data[25:26] == b"\4":  # gray and alpha, 4 bytes a pixel as RGBA has: high, low, high, low
        return Decoded(np.asarray(_unpacked_png(data, "RGBA", name)).view(">u2").astype(np.uint16), "gray")
    mode = "RGB" if data[25:26] == b"\2" else "RGBA"
    values: NDArray[Any] | None = None  # (H, W, C, 2): low and high byte
    for byte, order in enumerate("LB"):
        image = _unpacked_png(data, f"{mode};16{order}", name)
        values = np.empty((image.height, image.width, len(mode), 2), np.uint8) if values is None else values
        for top in range(0, image.height, ROWS):
            rows = image.crop((0, top, image.width, min(top + ROWS, image.height)))
            values[top : top + ROWS, :, :, byte] = np.asarray(rows)
        del rows, image  # before the other half is unpacked
    assert values is not None
    return Decoded(values.view("<u2")[..., 0].astype(np.uint16, copy=False), mode.lower())


def _unpacked_png(data: bytes, layout: str, name: str) -> Image.Image:
    """Upright, with the pixels' bytes read as `layout`, one of Pillow's raw modes."""
    image = open_image(data, name)
    image.tile = [image.tile[0]._replace(args=layout)]
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image


# ---------------------------------------------------------------------------------- headers, before anything is decoded


def read_bytes(path_or_bytes: str | Path | bytes, name: str) -> bytes:
    """A file's content, or the bytes given.

    Raises:
        UserError: missing or empty; the text starts with `name`.
    """
    try:
        data = path_or_bytes if isinstance(path_or_bytes, bytes) else Path(path_or_bytes).read_bytes()
    except OSError as error:
        raise UserError(f"{name} could not be read ({error.strerror or error}).") from error
    if not data:
        raise UserError(f"{name} is empty (0 bytes); expected an image.")
    return data


def open_image(
    data: bytes, name: str, *, formats: tuple[str, ...] = FORMATS, max_pixels: float | None = None
) -> ImageFile.ImageFile:
    """A file's bytes → a PIL image whose header has been checked, and whose pixels are not decoded yet.

    Args:
        data: the bytes.
        name: what errors call the file.
        formats: of `FORMATS`, those that are taken.
        max_pixels: height times width; None: Pillow's `MAX_IMAGE_PIXELS`.

    Raises:
        UserError: another format, damaged, more pixels; a header that asks for more than the file justifies.
    """
    with _damage_named(name):
        _check_parts(data, name)
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
        except UnidentifiedImageError:
            expected = ", ".join(formats)
            raise UserError(f"{name} is not a picture that can be read; expected one of {expected}.") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise _too_many_pixels(name, max_pixels or Image.MAX_IMAGE_PIXELS or 0) from error
        exif, raw = image.info.get("exif", b""), image.info.get("Raw profile type exif")
        if not exif and raw:
            exif = bytes.fromhex("".join(raw.split("\n")[3:]))
        check_exif(exif, name)  # of PNG and WebP, which are opened without a look at it
    refuse_too_large(image.height, image.width, name, max_pixels=max_pixels)
    return image


def refuse_too_large(
    height: int, width: int, name: str, *, bytes_per_pixel: int = 0, max_pixels: float | None = None
) -> None:
    """Raises `UserError` above `max_pixels` (None: Pillow's `MAX_IMAGE_PIXELS`), or above `MAX_DECODED_BYTES`."""
    # Pillow itself only warns up to twice its limit; a warning filter would not be safe between threads
    most = max_pixels or Image.MAX_IMAGE_PIXELS
    if most and height * width > most:
        raise _too_many_pixels(name, most)
    if height * width * bytes_per_pixel > MAX_DECODED_BYTES:
        size = f"{height * width * bytes_per_pixel / 1e9:.1f} GB"
        raise UserError(f"{name} unpacks to {size}, over a quarter of this machine's memory; cut it into tiles.")


def _too_many_pixels(name: str, most: float) -> UserError:
    return UserError(
        f"{name} has too many pixels; at most {most / 1e6:g} megapixels are taken here. "
        "Make it smaller, or cut it into tiles."
    )


def _check_parts(data: bytes, name: str) -> None:
    """Raise `UserError` where Pillow, which handles each part in Python, would take long or much memory."""
    if data.startswith(TIFF_MAGIC):
        directories(data, name)
    elif data.startswith(b"BM") and data[30:31] in (b"\1", b"\2"):
        if max(abs(side) for side in struct.unpack_from("<ii", data, 18)) > MAX_RUN_LENGTH_SIDE:
            most = f"at most {MAX_RUN_LENGTH_SIDE} pixels a side"
            raise UserError(f"{name} is a run-length encoded BMP, of which {most} are read: save it as PNG.")
    elif (
        (data.startswith(b"\xff\xd8\xff") and not _is_bounded_jpeg(data, name))
        or (data.startswith(PNG_MAGIC) and not _is_bounded_png(data))
        or (data.startswith(b"GIF8") and not _is_bounded_gif(data))
    ):
        raise UserError(f"{name} is made of more parts than an image needs: save it again.")


def _is_bounded_png(data: bytes) -> bool:
    at = len(PNG_MAGIC)
    for _ in range(MAX_PARTS):
        if at + 12 > len(data) or data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def _is_bounded_gif(data: bytes) -> bool:
    """Walk up to the first picture: comments are put together block by block."""
    start = at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while data[at : at + 1] not in (b"", b",", b";") and at - start <= MAX_LEAD:
        if data[at] != ord("!"):
            at += 1
            continue
        at += 2
        while data[at : at + 1] not in (b"", b"\0"):
            at += 1 + data[at]
        at += 1
    return at - start <= MAX_LEAD


def _is_bounded_jpeg(data: bytes, name: str) -> bool:
    at, scans, junk = 2, 0, 0
    exif: list[bytes] = []  # Pillow puts its segments together
    for _ in range(MAX_PARTS):
        found = _JPEG_MARKER.search(data, at)
        junk += 0 if scans else (found.start() if found else len(data)) - at
        if junk > MAX_JUNK or scans > MAX_SCANS:
            return False
        if found is None or (scans and found[0] == b"\xff\xd9"):
            check_exif(b"".join(exif), name)
            return True
        at, code = found.end(), int.from_bytes(found[0], "big")
        if MARKER.get(code, ("", "", None))[2] is None:
            continue  # it stands alone
        segment = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        at += 2 + len(segment)
        scans += code == 0xFFDA
        if code == 0xFFE1 and segment.startswith(b"Exif\0\0"):
            exif.append(segment[6:])
        elif code == 0xFFE2 and segment.startswith(b"MPF\0"):
            check_exif(segment[4:], name)
    return False
