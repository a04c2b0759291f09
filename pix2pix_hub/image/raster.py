"""Georeferenced rasters, opened with rasterio: read through windows, never whole.

rasterio is the extra `geo`. Everything else of the package reads a GeoTIFF as any other TIFF, and says so.
"""

from __future__ import annotations

import importlib
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pix2pix_hub.image.read import Decoded, from_memory
from pix2pix_hub.image.tiff import TIFF_MAGIC, directories
from pix2pix_hub.util import UserError

GEO_KEYS = 34735  # the TIFF tag that says how coordinates are meant
Window = tuple[tuple[int, int], tuple[int, int]]  # rows and columns, from and to
CACHE_BYTES = 2**27  # of blocks that GDAL keeps, for all rasters that are open; its own bound follows from the machine
LOOKED_AT = 512  # pixels along the longer side of a raster that is looked at as a whole


def has_coordinates(file: Path) -> bool:
    """Whether a file is a GeoTIFF, by its tags alone; False for what cannot be read."""
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data[:4].startswith(TIFF_MAGIC) and GEO_KEYS in directories(data, str(file))[0]  # type: ignore[arg-type]  # reads as bytes do
    except (UserError, OSError, ValueError, IndexError, OverflowError, struct.error):
        return False


def rasterio_of(file: Path) -> Any:
    """Import rasterio, with the modules used here.

    Raises:
        UserError: it is not installed; the text starts with the file that needs it.
    """
    try:
        rasterio = importlib.import_module("rasterio")
        for name in ("enums", "errors", "shutil", "vrt", "warp"):
            importlib.import_module(f"rasterio.{name}")
    except ImportError as error:
        raise UserError(
            f"{file} is a raster with coordinates, which are read and written by rasterio: "
            'pip install "pix2pix_hub[geo]" (in a checkout: pip install -e ".[geo]").'
        ) from error
    return rasterio


@contextmanager
def open_raster(file: Path) -> Iterator[Any]:
    """Open a GeoTIFF as a rasterio dataset; errors while it is open are told of the file, too.

    Raises:
        UserError: no such file, not a GeoTIFF or a damaged one; no coordinate reference system; a grid that is rotated.
    """
    rasterio = rasterio_of(file)
    if not file.is_file():
        raise UserError(f"{file} does not exist: expected a GeoTIFF.")
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), rasterio.open(file, driver="GTiff") as raster:
            check_grid(raster, file)
            yield raster
    except rasterio.errors.RasterioError as error:
        raise UserError(f"{file} cannot be read as a GeoTIFF ({error}).") from error


def check_grid(raster: Any, file: Path) -> None:
    """Raise `UserError` unless the raster's pixels have coordinates that grow along its rows and columns."""
    if raster.crs is None or raster.transform.is_identity:
        raise UserError(
            f"{file} has no georeference: say where it lies, for example with rio edit-info --crs EPSG:32632 "
            "--transform '[a, b, c, d, e, f]' FILE (or gdal_edit.py -a_srs … -a_ullr …)."
        )
    if not raster.transform.is_rectilinear:
        raise UserError(f"{file} lies rotated on the ground: bring it north up first, with rio warp or gdalwarp.")


def bands_of(raster: Any) -> list[int]:
    """Numbers of the bands that hold values, from 1: without one that says where there is data."""
    alpha = [meaning.name == "alpha" for meaning in raster.colorinterp]
    return [number for number, is_alpha in enumerate(alpha, 1) if not is_alpha]


def looked_at(raster: Any) -> Any:
    """All of it, made small by leaving pixels out: a masked array (C, h, w) of at most 512 pixels on a side."""
    shrink = max(1.0, max(raster.shape) / LOOKED_AT)
    height, width = (max(1, int(side / shrink)) for side in raster.shape)
    bands = bands_of(raster)
    return raster.read(bands, out_shape=(len(bands), height, width), masked=True)


def fill_of(raster: Any) -> NDArray[Any] | None:
    """What stands for no data in each band, (C, 1, 1): about the least value there is; None: what is stored.

    Where numbers are more than a picture's 8 or 16 bits, no data is commonly NaN or -9999: values that would spoil
    what all others are scaled by.
    """
    if raster.dtypes[0] in ("uint8", "uint16"):
        return None
    least = looked_at(raster).min(axis=(1, 2))
    return np.ma.filled(least, 0).astype(np.float32)[:, None, None]


def read_window(raster: Any, window: Window, name: str, fill: NDArray[Any] | None = None) -> Decoded:
    """Pixels of a window as `read_image` gives those of a file; `fill` as `fill_of` has it.

    Raises:
        UserError: a damaged file, or a kind of number that is not read; the text starts with `name`.
    """
    rasterio = rasterio_of(Path(name))
    bands = bands_of(raster)
    try:
        values = raster.read(bands, window=window)
        if fill is not None:
            valid = raster.read_masks(bands, window=window) > 0
            values = np.where(valid & ~np.isnan(values), values, fill)
        colors = raster.colormap(1) if "palette" in [meaning.name for meaning in raster.colorinterp] else None
    except rasterio.errors.RasterioError as error:
        raise UserError(f"{name} is damaged at {window[0][0]}, {window[1][0]} (row, column): {error}") from error
    image = from_memory(np.ascontiguousarray(np.moveaxis(values, 0, -1)), name)
    if colors is None or image.values.dtype != np.uint8:
        return image
    return Decoded(image.values, "rgb", np.array([colors[number][:3] for number in range(len(colors))], np.uint8))
