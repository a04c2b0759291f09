"""Image files before they are decoded: the formats that are read, and bounds on what a header may ask for.

A header costs its writer nothing, and Pillow believes it: one that names a part of the file a thousand times is given
a thousand copies of it. Here a file is walked first, so that time and memory follow from its size and its pixels.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.JpegImagePlugin import MARKER

from pix2pix_hub.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # as Pillow calls them; it knows others, and starts programs
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_DECODED_BYTES = psutil.virtual_memory().total // 4  # of one image
MAX_CHANNELS = 256  # bands and pages together
MAX_PARTS = 2**16  # chunks or segments of a file
MAX_SCANS = 100  # of a progressive JPEG, each of which is a pass over all pixels
MAX_JUNK = 2**16  # bytes between the segments of a JPEG
MAX_LEAD = 2**20  # bytes before the picture of a GIF
MAX_RUN_LENGTH_SIDE = 2048  # pixels, of a BMP that Pillow unpacks byte by byte
MAX_VALUES = 2**18  # numbers in the tags of a page: two for each strip or tile
MAX_TAG_BYTES = 2**24  # in the tags of a page, beyond the size of the file

_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_TAG_TYPES = {1: "B", 2: "S1", 3: "H", 4: "I", 5: "Q", 6: "b", 7: "B", 8: "h", 9: "i", 10: "q", 11: "f", 12: "d",
              13: "I", 16: "Q", 17: "q", 18: "Q"}  # fmt: skip
_EXIF_DIRECTORIES = (0x8769, 0x8825, 0xA005)
_OUTSIDE = (struct.error, OverflowError)  # offsets that lead nowhere

Tags = dict[int, NDArray[np.generic]]
"""The tags of a page of a TIFF: number → values."""


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
    try:
        _check_parts(data, name)
        image = Image.open(io.BytesIO(data), formats=formats)
        _check_exif(image, name)
    except UserError:
        raise
    except UnidentifiedImageError:
        expected = ", ".join(formats)
        raise UserError(f"{name} is not a picture that is read here; expected one of {expected}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(name, max_pixels or Image.MAX_IMAGE_PIXELS or 0) from error
    except Exception as error:  # damaged headers raise almost anything
        raise UserError(f"{name} is damaged or truncated ({error}).") from error
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


# --------------------------------------------------------------------------------------- the parts that a file is of


def _check_parts(data: bytes, name: str) -> None:
    """Raise `UserError` where Pillow, which handles each part in Python, would take long or much memory."""
    if data.startswith(b"\xff\xd8\xff"):
        _check_jpeg(data, name)
    elif data.startswith(PNG_MAGIC):
        _check_png(data, name)
    elif data.startswith(b"GIF8"):
        _check_gif(data, name)
    elif data.startswith(TIFF_MAGIC):
        directories(data, name)
    elif data.startswith(b"BM") and data[30:31] in (b"\1", b"\2"):
        sides = [abs(side) for side in struct.unpack_from("<ii", data, 18)]
        if max(sides) > MAX_RUN_LENGTH_SIDE:
            most = f"at most {MAX_RUN_LENGTH_SIDE} pixels a side"
            raise UserError(f"{name} is a run-length encoded BMP, of which {most} are read: save it as PNG.")


def _too_many_parts(name: str) -> UserError:
    return UserError(f"{name} is made of more parts than an image needs: save it again.")


def _check_png(data: bytes, name: str) -> None:
    at = len(PNG_MAGIC)
    for _ in range(MAX_PARTS):
        if at + 12 > len(data) or data[at + 4 : at + 8] == b"IEND":
            return
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise _too_many_parts(name)


def _check_gif(data: bytes, name: str) -> None:
    """Up to the first picture: comments are put together block by block."""
    start = at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while data[at : at + 1] not in (b"", b",", b";") and at - start <= MAX_LEAD:
        if data[at] != ord("!"):
            at += 1
            continue
        at += 2
        while data[at : at + 1] not in (b"", b"\0"):
            at += 1 + data[at]
        at += 1
    if at - start > MAX_LEAD:
        raise _too_many_parts(name)


def _check_jpeg(data: bytes, name: str) -> None:
    at, scans, junk = 2, 0, 0
    exif: list[bytes] = []  # Pillow puts its segments together
    for _ in range(MAX_PARTS):
        found = _JPEG_MARKER.search(data, at)
        junk += 0 if scans else (found.start() if found else len(data)) - at
        if junk > MAX_JUNK or scans > MAX_SCANS:
            break
        if found is None or (scans and found[0] == b"\xff\xd9"):
            return _check_block(b"".join(exif), name)
        at, code = found.end(), int.from_bytes(found[0], "big")
        if MARKER.get(code, ("", "", None))[2] is None:
            continue  # it stands alone
        segment = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        at += 2 + len(segment)
        scans += code == 0xFFDA
        if code == 0xFFE1 and segment.startswith(b"Exif\0\0"):
            exif.append(segment[6:])
        elif code == 0xFFE2 and segment.startswith(b"MPF\0"):
            _check_block(segment[4:], name)
    raise _too_many_parts(name)


# ------------------------------------------------------------------------------------------------------ TIFF and EXIF


def _check_exif(image: Image.Image, name: str) -> None:
    """Of PNG and WebP, which are opened without a look at it."""
    exif = image.info.get("exif", b"")
    raw = image.info.get("Raw profile type exif")
    if not exif and raw:
        exif = bytes.fromhex("".join(raw.split("\n")[3:]))
    _check_block(exif, name)


def _check_block(block: bytes, name: str) -> None:
    """EXIF is a TIFF without pixels, and Pillow reads it as far as it goes."""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    with contextlib.suppress(*_OUTSIDE):
        directories(block, name)


def directories(data: bytes, name: str) -> list[Tags]:
    """The pages of a TIFF, or of the EXIF of an image, each with its tags; those that are damaged hold nothing.

    Raises:
        UserError: a circle, more than `MAX_CHANNELS` pages, tags that claim more than `MAX_VALUES` or the file.
        struct.error, OverflowError: a page that is not in the file.
    """
    order = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    if big and struct.unpack_from(order + "HH", data, 4) != (8, 0):
        raise UserError(f"{name} is damaged: its offsets are not of 8 bytes.")
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    pages: list[Tags] = []
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) >= MAX_CHANNELS:
            raise UserError(f"{name} is damaged, or has more than {MAX_CHANNELS} pages.")
        seen.add(offset)
        tags, offset = _directory(data, offset, order, big, name)
        pages.append(tags)
    return pages


def _directory(data: bytes, offset: int, order: str, big: bool, name: str, depth: int = 2) -> tuple[Tags, int]:
    """The tags at an offset, and the offset of the next page's. EXIF lies up to `depth` pointers further."""
    count_format, entry_format, next_format = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    (count,) = struct.unpack_from(order + count_format, data, offset)
    entry, inline = struct.Struct(order + entry_format), 8 if big else 4
    first = offset + struct.calcsize(count_format)
    if count > MAX_PARTS:
        raise _too_many_parts(name)
    tags: Tags = {}
    values = size = 0
    for at in range(first, min(first + count * entry.size, len(data) - entry.size + 1), entry.size):
        tag, kind, length, place = entry.unpack_from(data, at)
        number = np.dtype(order + _TAG_TYPES.get(kind, "B"))
        place = at + entry.size - inline if length * number.itemsize <= inline else place
        damaged = kind not in _TAG_TYPES or place + length * number.itemsize > len(data)
        tags[tag] = np.frombuffer(data, number, length, place) if length and not damaged else np.zeros(0, number)
        if damaged:
            continue
        values += 0 if number.itemsize == 1 else length
        size += length * number.itemsize
        if values > MAX_VALUES or size > len(data) + MAX_TAG_BYTES:
            raise UserError(f"{name} is damaged: its tags claim more than the file holds.")
    for pointer in _EXIF_DIRECTORIES if depth else ():
        if pointer in tags and len(tags[pointer]) and tags[pointer].dtype.kind in "iu":
            with contextlib.suppress(*_OUTSIDE):
                _directory(data, int(tags[pointer][0]), order, big, name, depth - 1)
    (following,) = struct.unpack_from(order + next_format, data, first + count * entry.size)
    return tags, following
