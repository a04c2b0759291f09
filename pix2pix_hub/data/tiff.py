"""TIFF of several pages or bands, or of depths that Pillow lacks, through tifffile."""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pix2pix_hub.images import refuse_too_many_pixels
from pix2pix_hub.util import UserError

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_CHANNELS = 256


def read_bands(data: bytes, name: str) -> NDArray[Any] | None:
    """The bands and pages of a TIFF as channels, `(H, W, C)`; None for those that Pillow reads whole.

    Raises:
        UserError: cut short, unequal pages, too large, a codec that is not installed; the text starts with `name`.
    """
    import tifffile

    _check_page_chain(data, name)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        if len(tiff.pages) == 1 and _pillow_reads(page):
            return None
        _check_ends(tiff, data, name)
        series = tiff.series[0]
        axes, sizes = series.axes, dict(zip(series.axes, series.shape, strict=True))
        refuse_too_many_pixels(sizes["Y"], sizes["X"], name)
        if math.prod(series.shape) > MAX_CHANNELS * sizes["Y"] * sizes["X"]:
            raise UserError(f"{name} has {'x'.join(map(str, series.shape))} values ({axes}): too many pages or bands.")
        if any(not other.keyframe.is_reduced for other in tiff.series[1:]):
            raise UserError(f"{name} has pages of different sizes or kinds; expected one image or equal pages.")
        array = _values(series, name)
    bands = [axis for axis in range(len(axes)) if axes[axis] not in "YX"]
    return array.transpose(axes.index("Y"), axes.index("X"), *bands).reshape(sizes["Y"], sizes["X"], -1)


def _check_page_chain(data: bytes, name: str) -> None:
    """Every page header lies inside the file, and the chain of them ends; tifffile only logs it where not, or circles.

    Raises:
        UserError: the file is cut short or damaged.
    """
    order = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    start, count_format, entry_size, offset_format = (8, "Q", 20, "Q") if big else (4, "H", 12, "I")
    seen: set[int] = set()
    (offset,) = struct.unpack_from(order + offset_format, data, start)
    while offset:
        if offset in seen or len(seen) > MAX_CHANNELS:
            raise UserError(f"{name} is damaged, or has more than {MAX_CHANNELS} pages.")
        seen.add(offset)
        (entries,) = struct.unpack_from(order + count_format, data, offset)
        after = offset + struct.calcsize(count_format) + entries * entry_size
        (offset,) = struct.unpack_from(order + offset_format, data, after)


def _pillow_reads(page: Any) -> bool:
    """One page of 8-bit gray, palette, RGB or CMYK, where a further sample is alpha; or 16-bit or float gray."""
    alpha = sum(int(extra) in (1, 2) for extra in page.extrasamples)
    if page.bitspersample > 8:
        return page.samplesperpixel == 1 and page.dtype in (np.uint16, np.float32)
    colours = page.samplesperpixel - alpha
    return page.bitspersample in (1, 2, 4, 8) and alpha <= 1 and colours in {5: (4,)}.get(int(page.photometric), (1, 3))


def _values(series: Any, name: str) -> NDArray[Any]:
    try:
        return series.asarray()
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise UserError(f"{name} is compressed in a way that needs `pip install imagecodecs` ({error})") from error
        raise


def _check_ends(tiff: Any, data: bytes, name: str) -> None:
    """The pixels lie inside the file; tifffile would fill up with zeros."""
    for page in tiff.pages:
        end = max(
            (start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0
        )
        if end > len(data):
            raise UserError(f"{name} is damaged or truncated ({len(data)} of {end} bytes).")
