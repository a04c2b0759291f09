"""TIFF: its pages and their tags, of EXIF as well, and the pixels of several pages or bands and of depths Pillow lacks.

Nothing is believed: tags claim no more than the file holds; strips and tiles lie inside the file, are as many as the
image needs, and unpack to what their place in the image holds, no more and no less.
"""

from __future__ import annotations

import contextlib
import lzma
import math
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pix2pix_hub.util import UserError

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_CHANNELS = 256  # bands and pages together
MAX_TAGS = 2**16  # of a page
MAX_VALUES = 2**18  # numbers in the tags of a page: two for each strip or tile
MAX_TAG_BYTES = 2**24  # in the tags of a page, beyond the size of the file
_TAG_TYPES = {1: "B", 2: "S1", 3: "H", 4: "I", 5: "Q", 6: "b", 7: "B", 8: "h", 9: "i", 10: "q", 11: "f", 12: "d",
              13: "I", 16: "Q", 17: "q", 18: "Q"}  # fmt: skip
_EXIF_DIRECTORIES = (0x8769, 0x8825, 0xA005)
_OUTSIDE = (struct.error, OverflowError)  # offsets that lead nowhere

Tags = dict[int, NDArray[np.generic]]  # of a page: number → values
MAX_TILE_SIDE = 4096  # pixels, where the image is smaller
LZMA_MEMORY = 2**27  # bytes: twice what the largest preset takes
RAW, LZW, OLD_JPEG, PACKBITS, LZMA = 1, 5, 6, 32773, 34925
DEFLATE, ZSTANDARD = (8, 32946, 50013), (34926, 50000)
LAYOUT = (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339)  # tags
KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # SampleFormat → NumPy's kind of number
COLOURS = {2: 3, 5: 4, 6: 3, 8: 3}  # of RGB, CMYK, YCbCr and Lab; of all else 1
YCBCR = 6


def check_exif(block: bytes, name: str) -> None:
    """Refuse EXIF that claims more than it holds: it is a TIFF without pixels, which Pillow reads as far as it goes."""
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
    pages: dict[int, Tags] = {}  # by their offsets
    while offset:
        if offset in pages or len(pages) >= MAX_CHANNELS:
            raise UserError(f"{name} is damaged, or has more than {MAX_CHANNELS} pages.")
        pages[offset], offset = _directory(data, offset, order, big, name)
    return list(pages.values())


def _directory(data: bytes, offset: int, order: str, big: bool, name: str, depth: int = 2) -> tuple[Tags, int]:
    """The tags at an offset, and the offset of the next page's. EXIF lies up to `depth` pointers further."""
    count_format, entry_format, next_format = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    (count,) = struct.unpack_from(order + count_format, data, offset)
    entry, inline = struct.Struct(order + entry_format), 8 if big else 4
    first = offset + struct.calcsize(count_format)
    tags: Tags = {}
    values = size = 0
    if count > MAX_TAGS:
        raise UserError(f"{name} is damaged: its tags claim more than the file holds.")
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


def image_pages(data: bytes, name: str) -> list[Page]:
    """The pages that make up the image of a TIFF, all alike.

    Raises:
        UserError: cut short, or unequal pages; the text starts with `name`.
    """
    first, *further = directories(data, name)
    further = [tags for tags in further if 254 not in tags or not int(tags[254][0]) & 1]  # not the image made smaller
    pages = [Page(tags, data, name) for tags in (first, *further)]
    if len({(page.height, page.width, page.samples, page.bits, page.kind) for page in pages}) > 1:
        raise UserError(f"{name} has pages of different sizes or kinds; expected one image or equal pages.")
    if len(pages) * (samples := pages[0].samples) > MAX_CHANNELS:
        raise UserError(f"{name} has {len(pages)} pages of {samples} bands; at most {MAX_CHANNELS} are read.")
    return pages


def read_bands(pages: list[Page], data: bytes, name: str) -> NDArray[Any]:
    """The bands of all pages as channels, `(H, W, C)`.

    Raises:
        UserError: damaged, or a codec that is not read; the text starts with `name`.
    """
    first = pages[0]
    bands = np.empty((first.height, first.width, first.samples * len(pages)), first.numbers(name).newbyteorder("="))
    for number, page in enumerate(pages):
        page.unpack(data, bands[:, :, number * first.samples : (number + 1) * first.samples], name)
    return bands


class Page:
    """The layout of one page.

    Raises:
        UserError: too large, or a strip or tile that is not in the file.
        KeyError: no height, width or strips, or an order of samples that there is not.
    """

    def __init__(self, tags: Tags, data: bytes, name: str) -> None:
        def one(tag: int, default: int | None = None) -> int:
            return default if default is not None and tag not in tags else int(tags[tag][0])

        if any(tag in tags and not (len(tags[tag]) and tags[tag].dtype.kind == "u") for tag in LAYOUT):
            raise UserError(f"{name} is damaged: its tags hold no whole numbers, or lead out of the file.")
        self.order = "<" if data[:1] == b"I" else ">"
        self.height, self.width, self.samples = one(257), one(256), one(277, 1)
        if not (self.height > 0 and self.width > 0 and 0 < self.samples <= MAX_CHANNELS):
            raise UserError(f"{name} is damaged: it is {self.height}x{self.width} pixels of {self.samples} samples.")
        own = [set(tags[tag][: self.samples].tolist()) if tag in tags else {1} for tag in (258, 339)]
        self.bits, kind = (int(values.pop()) if len(values) == 1 else 0 for values in own)  # 0: samples differ
        self.kind = KINDS.get(kind, "")
        self.compression, self.predictor, self.fill_order = one(259, RAW), one(317, 1), one(266, 1)
        self.photometric = one(262, 0)
        self.alphas = int(np.isin(tags[338], (1, 2)).sum()) if 338 in tags else 0
        self.tiled, separate = 322 in tags, {1: False, 2: True}[one(284, 1)]
        strip = min(one(278, self.height), self.height), self.width
        self.rows, self.columns = (one(323), one(322)) if self.tiled else strip
        most = max(self.height, MAX_TILE_SIDE), max(self.width, MAX_TILE_SIDE)
        if not (0 < self.rows <= most[0] and 0 < self.columns <= most[1]):
            raise UserError(f"{name} has tiles of {self.rows}x{self.columns} pixels, too large for its image.")
        self.depth = 1 if separate else self.samples  # samples beside each other
        self.row_bytes = math.ceil(self.columns * self.depth * self.bits / 8)  # of a strip or tile
        planes = self.samples if separate else 1
        self.grid = planes, math.ceil(self.height / self.rows), math.ceil(self.width / self.columns)
        if self.compression != OLD_JPEG:  # which has tags of its own
            self._find(tags, data, name)

    def _find(self, tags: Tags, data: bytes, name: str) -> None:
        """Find the strips or tiles, those of one plane after those of another."""
        expected = math.prod(self.grid)
        offsets, counts = (324, 325) if self.tiled else (273, 279)
        self.offsets = tags[offsets][:expected].astype(np.int64)
        tops = self.rows * (np.arange(len(self.offsets)) // self.grid[2] % self.grid[1])
        needed = np.minimum(self.rows, self.height - tops) * self.row_bytes
        known = counts in tags or expected > 1 or self.compression != RAW  # else it may be missing
        self.counts = tags[counts][:expected].astype(np.int64) if known else needed
        if not len(self.offsets) == len(self.counts) == expected:
            raise UserError(f"{name} is damaged or truncated: it has no {expected} strips or tiles.")
        missing = (self.offsets < 8) | (self.counts < 1) | (self.counts > len(data) - self.offsets)
        if self.compression == RAW and self.photometric != YCBCR:
            whole = self.rows * self.row_bytes
            missing |= (self.counts < needed) | (self.tiled & (self.counts != needed) & (self.counts != whole))
        if missing.any():
            lost = f"{missing.sum()} of {expected} strips or tiles are missing"
            raise UserError(f"{name} is damaged or truncated: {lost}.")

    @property
    def pillow_reads(self) -> bool:
        """8-bit gray, palette, RGB or CMYK, where a further sample is alpha; or 16-bit or float gray.

        Not big-endian floats, whose bytes Pillow takes in the wrong order where they are compressed.
        """
        if self.bits > 8:
            floats = (self.kind, self.bits, self.order) == ("f", 32, "<")
            return self.samples == 1 and (floats or (self.kind == "u" and self.bits <= 16))
        colours = COLOURS.get(self.photometric, 1)
        return self.bits in (1, 2, 4, 8) and self.alphas <= 1 and self.samples - self.alphas == colours

    def numbers(self, name: str) -> np.dtype[Any]:
        """The type of the numbers that are stored."""
        if (self.bits, self.kind) == (1, "u"):
            return np.dtype(bool)
        known = (16, 32, 64) if self.kind == "f" else (8, 16, 32, 64) if self.kind else ()
        if self.bits not in known or self.fill_order != 1 or self.predictor not in (1, 2, 3):
            raise UserError(f"{name} stores its numbers in a way that is not read; save it as 8 or 16 bits, or floats.")
        return np.dtype(f"{self.order}{self.kind}{self.bits // 8}")

    def unpack(self, data: bytes, bands: NDArray[Any], name: str) -> None:
        """Fill `(H, W, samples)`."""
        for number, (offset, count) in enumerate(zip(self.offsets.tolist(), self.counts.tolist(), strict=True)):
            place, across = divmod(number, self.grid[2])
            plane, down = divmod(place, self.grid[1])
            top, left = down * self.rows, across * self.columns
            height = min(self.rows, self.height - top)
            most, least = self.rows * self.row_bytes, height * self.row_bytes
            block = _unpacked(self.compression, data[offset : offset + count], most, name)
            if len(block) < least or (self.tiled and len(block) not in (least, most)):
                raise UserError(f"{name} is damaged or truncated: a strip or tile unpacks to {len(block)} bytes.")
            values = self._values(np.frombuffer(block, np.uint8, least).reshape(height, self.row_bytes), name)
            place_in_image = bands[top : top + height, left : left + self.columns, plane : plane + self.depth]
            place_in_image[:] = values[:, : self.width - left]

    def _values(self, rows: NDArray[np.uint8], name: str) -> NDArray[Any]:
        """The bytes of rows → `(H, columns, depth)`."""
        shape, numbers = (len(rows), self.columns, self.depth), self.numbers(name)
        if numbers == np.bool_:
            return np.unpackbits(rows, axis=1)[:, : self.columns * self.depth].reshape(shape).astype(np.bool_)
        if self.predictor == 3:  # differences of bytes, all first bytes of a row's numbers before all second ones
            summed = np.cumsum(rows.reshape(len(rows), -1, self.depth), axis=1, dtype=np.uint8)
            parts = summed.reshape(len(rows), numbers.itemsize, -1).transpose(0, 2, 1)
            return np.ascontiguousarray(parts).view(f">{numbers.str[1:]}").reshape(shape)
        if self.predictor == 2:  # differences to the pixel at the left
            whole = np.dtype(f"u{numbers.itemsize}")
            steps = rows.view(self.order + whole.str[1:]).reshape(shape)
            return np.cumsum(steps, axis=1, dtype=whole).view(numbers.newbyteorder("="))
        return rows.view(numbers).reshape(shape)


def _unpacked(compression: int, block: bytes, size: int, name: str) -> bytes:
    """A strip or tile, which may be of `size` bytes at most."""
    if compression == RAW:
        return block[:size]
    if compression == PACKBITS:
        unpacked, complete = _unpacked_bits(block, size), True
    elif compression in (*DEFLATE, LZMA):
        extractor = lzma.LZMADecompressor(memlimit=LZMA_MEMORY) if compression == LZMA else zlib.decompressobj()
        unpacked, complete = extractor.decompress(block, size + 1), extractor.eof
    elif compression == LZW or compression in ZSTANDARD:
        try:
            import imagecodecs
        except ImportError as error:
            kind = "LZW" if compression == LZW else "Zstandard"
            raise UserError(f"{name} is compressed in a way that needs `pip install imagecodecs` ({kind}).") from error
        return (imagecodecs.lzw_decode if compression == LZW else imagecodecs.zstd_decode)(block, out=size)
    else:
        limits = f"in a way ({compression}) that is not read at this depth or number of bands"
        raise UserError(f"{name} is compressed {limits}; save it with Deflate.")
    if len(unpacked) > size:
        raise UserError(f"{name} is damaged: a strip or tile unpacks to more than its place in the image holds.")
    if not complete:
        raise UserError(f"{name} is damaged or truncated: a strip or tile ends too early.")
    return unpacked


def _unpacked_bits(block: bytes, size: int) -> bytes:
    """PackBits: a length, then as many bytes, or one that is repeated."""
    unpacked, at = bytearray(), 0
    while at < len(block) and len(unpacked) <= size:
        length = block[at]
        if length < 128:
            unpacked += block[at + 1 : at + 2 + length]
            at += 2 + length
        else:
            unpacked += block[at + 1 : at + 2] * (257 - length if length > 128 else 0)
            at += 2 if length > 128 else 1
    return bytes(unpacked)
