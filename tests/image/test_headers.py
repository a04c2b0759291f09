"""Files whose header asks for more than an image needs: refused before they cost anything."""

from __future__ import annotations

import contextlib
import io
import logging
import lzma
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_images import (
    BOMBS,
    MEGABYTES,
    chunk,
    inflate_bomb,
    into_jpeg,
    into_png,
    run_length_bmp,
    tags,
    tiff,
    with_tag,
)
from PIL import Image

from pix2pix_hub.image.read import read_image
from pix2pix_hub.ui.handlers import check_picture
from pix2pix_hub.ui.store import Limits
from pix2pix_hub.util import UserError


@pytest.mark.parametrize(("write", "expected"), BOMBS.values(), ids=BOMBS.keys())
def test_what_asks_for_more_than_it_holds_is_refused_at_no_cost(write: Callable[[], bytes], expected: str) -> None:
    content = write()
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=f"^x .*{expected}"):
            read_image(content, "x")
        assert tracemalloc.get_traced_memory()[1] < 2 * len(content) + 16 * MEGABYTES
    finally:
        tracemalloc.stop()


def packed_bits(raw: bytes) -> bytes:
    """In pieces of 128 bytes that are not repeated, without the last."""
    return b"".join(b"\x7f" + raw[at : at + 128] for at in range(0, 3584, 128)) + b"\x0f" + raw[3584:]


def single_bits(raw: bytes) -> bytes:
    """A code without effect, then each byte by itself."""
    return b"\x80" + b"".join(b"\0" + raw[at : at + 1] for at in range(3600))


@pytest.mark.parametrize(
    ("compression", "pack"), [(8, zlib.compress), (34925, lzma.compress), (32773, packed_bits), (32773, single_bits)]
)
def test_a_strip_that_unpacks_to_its_place_is_read(compression: int, pack: Callable[[bytes], bytes]) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (20, 30, 3)).astype("<u2")
    block = pack(values.tobytes())
    decoded = read_image(inflate_bomb(compression, block), "x")
    np.testing.assert_array_equal(decoded.values, values)
    with pytest.raises(UserError, match="^x is damaged or truncated: a strip or tile"):
        read_image(inflate_bomb(compression, block[:-1]), "x")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("samples", [1, 3])
def test_floats_may_be_stored_as_differences_of_bytes(dtype: str, samples: int) -> None:
    """TIFF's predictor 3, after Adobe's note: the bytes of a row by significance, then differences `samples` apart."""
    values = np.random.default_rng(0).random((5, 7, samples)).astype(dtype)
    parts = values.astype(values.dtype.newbyteorder(">")).reshape(5, -1, 1).view(np.uint8)  # (5, 7 samples, bytes)
    rows = np.ascontiguousarray(parts.transpose(0, 2, 1)).reshape(5, -1)
    steps = rows.copy()
    steps[:, samples:] -= rows[:, :-samples]
    shape = values.shape if samples > 1 else values.shape[:2]
    config = "contig" if samples > 1 else None
    whole = np.zeros(shape, f"i{values.itemsize}")  # tifffile itself cannot write predictor 3
    content = tiff(whole, photometric="minisblack", planarconfig=config, compression="zlib", predictor=2)
    block = zlib.compress(steps.tobytes())
    for tag, value in ((317, 3), (273, len(content)), (279, len(block)), *([(339, 3)] if samples == 1 else [])):
        content = with_tag(content, tag, value)
    content = content.replace(b"\2\0" * 3, b"\3\0" * 3) + block  # the kind of each sample
    decoded = read_image(content, "x")
    np.testing.assert_array_equal(decoded.values, values.astype(np.float32))


def test_what_is_beside_the_limits_is_read() -> None:
    """Small run-length BMPs, EXIF that is damaged, many JPEG segments."""
    codes = b"".join(bytes([30, row]) + b"\0\0" for row in range(20)) + b"\0\1"
    decoded = read_image(run_length_bmp(30, 20, codes), "x")
    np.testing.assert_array_equal(decoded.values[::-1, :, 0], np.repeat(np.arange(20)[:, None], 30, axis=1))
    for exif in (b"", tags(3, 7, 2**31), b"MM\0*" + b"\xff" * 30):
        assert read_image(into_png(chunk(b"eXIf", exif)), "x").size == (20, 30)
    assert read_image(into_jpeg(b"\xff\xfe\0\2" * 1000), "x").size == (20, 30)


def test_no_image_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands EPS to Ghostscript."""
    program, mark = tmp_path / "gs", tmp_path / "mark"
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it looks for one once
    picture = tmp_path / "x.png"
    picture.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n%%EndComments\nshowpage\n%%EOF\n")
    for attempt in (lambda: read_image(picture, "x"), lambda: check_picture(picture, "x", Limits())):
        with pytest.raises(UserError, match="^x is not a picture that can be read; expected one of PNG, JPEG"):
            attempt()
    assert not mark.exists()
    with Image.open(picture) as image, pytest.raises(OSError):
        image.load()
    assert mark.exists()  # so it was not that there was no program


@pytest.mark.parametrize("tag", [324, 325], ids=["offset", "byte count"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["uint16", "uint8"])  # uint8, and 16-bit gray, are Pillow's to read
@pytest.mark.parametrize("samples", [1, 3])
def test_a_missing_tile_is_not_filled_up(tag: int, compression: str | None, dtype: str, samples: int) -> None:
    values = np.random.default_rng(0).integers(1, 255, (16, 16, samples)).astype(dtype)
    options: dict[str, Any] = {"photometric": "minisblack"} if samples == 1 else {"photometric": "rgb"}
    content = tiff(values if samples > 1 else values[..., 0], tile=(16, 16), compression=compression, **options)
    decoded = read_image(content, "x")
    np.testing.assert_array_equal(decoded.values, values)
    with pytest.raises(UserError, match="^x is damaged or truncated: 1 of 1 strips or tiles are missing"):
        read_image(with_tag(content, tag, 0), "x")


def test_a_shape_is_not_negative() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1, 1), np.uint8))
    content = buffer.getvalue().replace(b"'shape': (1, 1), }", b"'shape': (-1, 1),}")
    assert len(content) == len(buffer.getvalue())
    with pytest.raises(UserError, match="^x is damaged: its shape is -1x1"):
        read_image(content, "x")


def test_damaged_files_say_so_to_their_reader_alone(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing on the standard streams, nothing logged."""
    content = tiff(np.zeros((40, 40, 3), np.uint16), photometric="rgb", rowsperstrip=8)
    with caplog.at_level(logging.INFO):
        for tag, value in ((279, 5), (258, 3), (277, 77), (278, 2), (282, 2**30)):
            with contextlib.suppress(UserError):
                read_image(with_tag(content, tag, value), "x")
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_pages_are_counted_before_they_are_read(tmp_path: Path) -> None:
    entry = struct.pack("<HHII", 256, 3, 1, 8)
    pages = b"".join(struct.pack("<H", 1) + entry + struct.pack("<I", 8 + 18 * number) for number in range(1, 50_000))
    (tmp_path / "x.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + pages)
    with pytest.raises(UserError, match="^x is damaged, or has more than 256 pages"):
        check_picture(tmp_path / "x.tif", "x", Limits())


def test_a_further_page_without_a_size_is_no_traceback(tmp_path: Path) -> None:
    pages = bytearray(tiff(np.zeros((2, 20, 30), np.uint8), photometric="minisblack"))
    (first,) = struct.unpack_from("<I", pages, 4)
    (second,) = struct.unpack_from("<I", pages, first + 2 + 12 * struct.unpack_from("<H", pages, first)[0])
    for at in range(second + 2, second + 2 + 12 * struct.unpack_from("<H", pages, second)[0], 12):
        if struct.unpack_from("<H", pages, at)[0] == 256:
            struct.pack_into("<H", pages, at, 60000)
    (tmp_path / "x.tif").write_bytes(pages)
    check_picture(tmp_path / "x.tif", "x", Limits())
    with pytest.raises(UserError, match="^x is damaged"):
        read_image(tmp_path / "x.tif", "x")
