"""Image files whose header asks for more than an image needs."""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from pix2pix_hub.image.read import MAX_LEAD, MAX_PARTS, MAX_SCANS
from pix2pix_hub.image.tiff import MAX_VALUES

MEGABYTES = 2**20


def pillow(format: str, size: tuple[int, int] = (30, 20), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(buffer, format=format, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, metadata=None, **options)
    return buffer.getvalue()


def with_tag(content: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF whose first page has another value there (of one number, or an offset)."""
    data = bytearray(content)
    (page,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, page)
    at = next(at for at in range(page + 2, page + 2 + 12 * count, 12) if struct.unpack_from("<H", data, at)[0] == tag)
    kind = struct.unpack_from("<H", data, at + 2)[0]
    struct.pack_into("<H" if kind == 3 else "<I", data, at + 8, value)
    return bytes(data)


def inflate_bomb(compression: int, block: bytes) -> bytes:
    """20x30 pixels of 16-bit RGB, of which one strip says to be `block`."""
    content = tiff(np.zeros((20, 30, 3), np.uint16), photometric="rgb", compression="zlib")
    for tag, value in ((259, compression), (273, len(content)), (279, len(block))):
        content = with_tag(content, tag, value)
    return content + block


def tags(count: int, kind: int, length: int, place: int = 8, order: str = "<") -> bytes:
    """EXIF, or a TIFF without pixels: tags that all claim the same bytes of the file."""
    entries = b"".join(struct.pack(order + "HHII", 50000 + number, kind, length, place) for number in range(count))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", count) + entries + struct.pack(order + "I", 0)


def greedy_exif() -> bytes:
    """Two thousand tags of a megabyte each."""
    block = tags(2000, 7, MEGABYTES)
    return block + bytes(MEGABYTES + 8 - len(block))


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def deep_png(array: np.ndarray) -> bytes:
    """`(H, W, C)` as a 16-bit PNG, written by hand: Pillow cannot write colours of 16 bits."""
    height, width, channels = array.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in array))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def segments(kind: int, content: bytes, size: int = 65000, head: bytes = b"") -> bytes:
    parts = (head + content[at : at + size] for at in range(0, len(content), size))
    return b"".join(struct.pack(">HH", kind, len(part) + 2) + part for part in parts)


def into_jpeg(content: bytes) -> bytes:
    return pillow("JPEG")[:2] + content + pillow("JPEG")[2:]


def into_png(content: bytes) -> bytes:
    return pillow("PNG")[:33] + content + pillow("PNG")[33:]


def raw_profile() -> bytes:
    block = tags(4000, 7, 300_000)
    block += bytes(300_100 - len(block))
    return chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 1\n" + block.hex().encode()))


def many_scans() -> bytes:
    whole = pillow("JPEG", (64, 64), progressive=True)
    start = whole.rindex(b"\xff\xda")
    return whole[:start] + whole[start:-2] * (MAX_SCANS + 1) + whole[-2:]


def commented_gif() -> bytes:
    content = pillow("GIF")
    at = 13 + (3 << (content[10] & 7) + 1)
    return content[:at] + b"!\xfe" + (b"\xff" + bytes(255)) * (MAX_LEAD // 256 + 1) + b"\0" + content[at:]


def run_length_bmp(width: int, height: int, codes: bytes) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(codes), 1, 1, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(codes), 0, 0, 14 + len(head)) + head + codes


def many_strips() -> bytes:
    content = tiff(np.zeros((20, 30), np.uint8))
    content += bytes(-len(content) % 4)
    for tag in (273, 279):
        (page,) = struct.unpack_from("<I", content, 4)
        data = bytearray(content)
        for at in range(page + 2, page + 2 + 12 * struct.unpack_from("<H", data, page)[0], 12):
            if struct.unpack_from("<H", data, at)[0] == tag:
                struct.pack_into("<HII", data, at + 2, 4, MAX_VALUES, len(content))
        content = bytes(data)
    return content + bytes(4 * MAX_VALUES)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "Deflate": (lambda: inflate_bomb(8, zlib.compress(bytes(64 * MEGABYTES))), "unpacks to more than its place"),
    "LZMA": (lambda: inflate_bomb(34925, lzma.compress(bytes(64 * MEGABYTES))), "unpacks to more than its place"),
    "PackBits": (lambda: inflate_bomb(32773, b"\x81\0" * (MEGABYTES // 2)), "unpacks to more than its place"),
    "a tile of a gigabyte": (
        lambda: with_tag(tiff(np.zeros((20, 30), np.uint16), tile=(16, 16)), 323, 2**25),
        "has tiles of 33554432x16 pixels",
    ),
    "TIFF tags": (lambda: tags(2000, 7, MEGABYTES) + bytes(MEGABYTES), "tags claim more than the file holds"),
    "TIFF tags of numbers": (many_strips, "tags claim more than the file holds"),
    "EXIF in PNG": (lambda: into_png(chunk(b"eXIf", greedy_exif())), "tags claim more than the file holds"),
    "EXIF as text in PNG": (lambda: into_png(raw_profile()), "tags claim more than the file holds"),
    "EXIF in WebP": (lambda: pillow("WEBP", exif=b"Exif\0\0" + greedy_exif()), "tags claim more than the file holds"),
    "EXIF in JPEG": (
        lambda: into_jpeg(segments(0xFFE1, greedy_exif(), head=b"Exif\0\0")),
        "tags claim more than the file holds",
    ),
    "the index of a JPEG of several pictures": (
        lambda: into_jpeg(segments(0xFFE2, tags(4000, 7, 40_000) + bytes(9000), head=b"MPF\0")),
        "tags claim more than the file holds",
    ),
    "chunks": (lambda: into_png(chunk(b"prVt", b"") * MAX_PARTS), "made of more parts than an image needs"),
    "segments": (lambda: into_jpeg(b"\xff\xfe\0\2" * MAX_PARTS), "made of more parts than an image needs"),
    "padding": (lambda: into_jpeg(b"\xff" * 10 * MAX_PARTS), "made of more parts than an image needs"),
    "scans": (many_scans, "made of more parts than an image needs"),
    "comments": (commented_gif, "made of more parts than an image needs"),
    "run lengths": (lambda: run_length_bmp(2**24, 1, b"\0\2\0\xff"), "is a run-length encoded BMP"),
}
