"""A raster with coordinates, of any size → the raster that a model makes of it, on the same ground.

Both are read and written through windows, on top of the exact tiling of `tiling.py`: in memory are a row of tiles, and
the inner map of the network. Until all is done, two files beside the result hold its pixels, for which there is room
from the start, and where the work stands; begun again, it goes on from there.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pix2pix_hub.export import WEIGHTS_NAME
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.image.raster import Window, fill_of, looked_at, open_raster, rasterio_of, read_window
from pix2pix_hub.inference.pipeline import Canvas, Pix2PixPipeline, Prepared, prepare
from pix2pix_hub.inference.tiling import Journal
from pix2pix_hub.util import PARTIAL_SUFFIX, UserError, __version__, write_aside

logger = logging.getLogger(__name__)

LOSSLESS = ("deflate", "lzw", "zstd", "packbits", "lzma", "lerc")  # kept; any other compression becomes deflate
KEEP_SECONDS, KEEP_RATIO = 60.0, 20.0  # between two states that are kept; that many times as long as keeping took
STRIP = 256  # rows that are read together
SEED_TAG = "PIX2PIX_SEED"


@dataclass(frozen=True, eq=False)
class RasterSource(Prepared):
    """A raster where an image is expected: its pixels are read as they are asked for."""

    whole: tuple[int, int] = field(kw_only=True)
    read: Callable[[Window], Prepared] = field(kw_only=True)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, without padding."""
        return self.whole

    def piece(self, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """As `Prepared.piece`."""
        assert self.padding is not None
        down, across = self.padding[0][rows], self.padding[1][columns]
        top, left = int(down.min()), int(across.min())
        part = self.read(((top, int(down.max()) + 1), (left, int(across.max()) + 1)))
        return replace(part, padding=(down - top, across - left)).piece()


class RasterCanvas(Canvas):
    """A raster being written, where a generated image is expected.

    Args:
        source: the raster that is translated.
        prepared: the same, prepared.
        channels: that the generator makes.
        target: how targets were stored.
    """

    def __init__(self, source: Any, prepared: RasterSource, channels: int, target: PixelFormat) -> None:
        super().__init__(None, prepared, channels, target, "decoded")
        self._source = source
        nodata = source.nodata
        stands = nodata is not None and (self.format.dtype == "float32" or _is_value(nodata, self.format.dtype))
        self.nodata: float | None = nodata if stands else None
        all_valid = all("all_valid" in (flag.name for flag in flags) for flags in source.mask_flag_enums)
        self.has_mask = self.nodata is None and not all_valid
        self.written: Any = None  # the dataset to write to

    def put(self, rows: slice, columns: slice, values: Tensor) -> None:
        """Write pixels, the nodata value where the source has no data."""
        window, pixels = ((rows.start, rows.stop), (columns.start, columns.stop)), values.numpy()
        if self.nodata is not None:
            valid = self._source.dataset_mask(window=window)
            if not np.isnan(self.nodata):  # no pixel with data may look as if it had none
                beside = self.nodata + 1 if self.nodata < self.format.high else self.nodata - 1
                pixels = np.where(pixels == self.nodata, np.array(beside, pixels.dtype), pixels)
            pixels = np.where(valid > 0, pixels, np.array(self.nodata, pixels.dtype))
        self.written.write(pixels, window=window)

    def profile(self) -> dict[str, Any]:
        """How the result is stored, in rasterio's words: as the source, but for what depends on the pixels."""
        source, channels = self._source, self.shape[0]
        kept = {name: source.profile[name] for name in ("blockxsize", "blockysize", "tiled") if name in source.profile}
        compression = source.profile.get("compress")
        if compression is not None:
            kept["compress"] = compression if compression.lower() in LOSSLESS else "deflate"
        size = {"height": source.height, "width": source.width, "count": channels, "dtype": self.format.dtype}
        place = {"crs": source.crs, "transform": source.transform, "nodata": self.nodata}
        return kept | size | place | {"driver": "GTiff", "BIGTIFF": "IF_SAFER"}


def _is_value(number: float, dtype: str) -> bool:
    return float(number).is_integer() and 0 <= number <= np.iinfo(dtype).max


def translate_raster(
    pipe: Pix2PixPipeline,
    file: Path,
    outputs: Mapping[int, Path],
    *,
    cog: bool = False,
    tile_size: int,
    stochastic: bool = False,
    seed: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Write what a model makes of a GeoTIFF, as GeoTIFFs of the same size, place, mask, blocks and compression.

    Args:
        pipe: the model.
        file: the source.
        outputs: numbers of samples, from 0, and where each goes.
        cog: write cloud-optimised GeoTIFFs: in blocks of 512 pixels, with overviews.
        tile_size, stochastic, progress: of `Pix2PixPipeline.__call__`.
        seed: the same; None: that of what was begun, else any. It is kept in the result, as the tag `SEED_TAG`.

    Raises:
        UserError: a raster that cannot be read or does not fit the model; a result that could not be written.
    """
    rasterio, name = rasterio_of(file), str(file)
    if stochastic and seed is None:
        begun = (_begun_with(output) for output in outputs.values())
        seed = next((one for one in begun if one is not None), int(torch.randint(2**62, ())))
    with open_raster(file) as raster:
        fill = fill_of(raster)

        def read(window: Window) -> Prepared:
            return prepare(read_window(raster, window, name, fill), pipe.preprocessor.source, name)

        corner, generator = read(((0, 1), (0, 1))), pipe.generator
        source = RasterSource(torch.empty(0), corner.format, corner.depth, whole=raster.shape, read=read)
        source = source.padded(generator.size_multiple, generator.minimum_size)
        for sample, output in outputs.items():
            canvas = RasterCanvas(raster, source, generator.out_channels, pipe.preprocessor.target)
            content = zlib.crc32(np.ma.filled(looked_at(raster)).tobytes()) if stochastic else 0
            own_seed = (seed, content, sample) if stochastic and seed is not None else None
            facts = [__version__, torch.__version__, str(pipe.device), str(pipe.dtype), tile_size, own_seed, cog]
            facts += [file.name, file.stat().st_size, file.stat().st_mtime_ns, repr(canvas.profile())]
            facts += [zlib.crc32((pipe.folder / WEIGHTS_NAME).read_bytes())]
            unfinished = _Unfinished(output, canvas, repr(facts), seed if stochastic else None)
            try:
                output.parent.mkdir(parents=True, exist_ok=True)
                with unfinished.opened(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                    journal = Journal(unfinished.state, unfinished.keep)
                    pipe.translate_large(
                        source, canvas, tile_size=tile_size, seed=own_seed, progress=progress, journal=journal
                    )
                    unfinished.write_mask(raster)
                    unfinished.publish(raster, cog)
            except (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError, SystemError, OSError) as error:
                raise UserError(f"{output} could not be written ({error}): the same command goes on.") from error


def _begun_with(output: Path) -> int | None:
    """The seed of an unfinished result; None: there is none."""
    rasterio = rasterio_of(output)
    with suppress(rasterio.errors.RasterioError, ValueError, KeyError), rasterio.open(_pixels_of(output)) as pixels:
        return int(pixels.tags()[SEED_TAG])
    return None


def _pixels_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.pixels{PARTIAL_SUFFIX}")


class _Unfinished:
    """A result being written: its pixels, without compression so that all have their place, and where the work stands.

    Args:
        output: the result.
        canvas: writes its pixels.
        identity: all that they follow from; what was begun with another is begun again.
        seed: to be kept with them; None: they follow from none.

    Attributes:
        state: that was kept; None: nothing was.
    """

    def __init__(self, output: Path, canvas: RasterCanvas, identity: str, seed: int | None) -> None:
        self.output, self.canvas, self.identity, self.seed = output, canvas, identity, seed
        self.pixels, self.journal = _pixels_of(output), output.with_name(f"{output.name}.journal{PARTIAL_SUFFIX}")
        self.state: dict[str, Any] | None = None
        self._kept_at, self._took = time.monotonic(), 0.0

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Have the canvas write to the pixels that are there, or to a new file with room for all."""
        rasterio = rasterio_of(self.output)
        with suppress(OSError, EOFError, KeyError, ValueError, RuntimeError, pickle.UnpicklingError):
            kept = torch.load(self.journal, map_location="cpu", weights_only=True)
            self.state = kept["state"] if kept["identity"] == self.identity and self.pixels.is_file() else None
        try:
            if self.state is not None:
                with suppress(rasterio.errors.RasterioError):
                    self.canvas.written = rasterio.open(self.pixels, "r+")
                    logger.info("%s goes on where it was stopped.", self.output)
            if self.canvas.written is None:
                if self.journal.exists():
                    logger.warning("%s was begun with another model, raster or options: begun again.", self.output)
                self._make_room()
                self.canvas.written = rasterio.open(self.pixels, "r+")
            yield
        except KeyboardInterrupt:
            if self.journal.exists():
                logger.warning(
                    "%s is unfinished: the same command goes on. Or delete %s and %s.",
                    self.output, self.pixels.name, self.journal.name,
                )  # fmt: skip
            raise
        finally:
            if self.canvas.written is not None:
                self.canvas.written.close()
            if not self.journal.exists():
                self.pixels.unlink(missing_ok=True)

    def _make_room(self) -> None:
        self.state = None
        self.journal.unlink(missing_ok=True)
        profile = self.canvas.profile() | {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": None}
        with rasterio_of(self.output).open(self.pixels, "w", **profile) as made:
            if self.seed is not None:
                made.update_tags(**{SEED_TAG: self.seed})
            if self.canvas.format.mode == "labels" and self.canvas.format.colors:
                made.write_colormap(1, dict(zip(self.canvas.format.classes, self.canvas.format.colors, strict=True)))
        needed = math.prod(self.canvas.shape) * np.dtype(self.canvas.format.dtype).itemsize
        with self.pixels.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):  # GDAL says nothing of a disk that is full
                os.posix_fallocate(file.fileno(), 0, max(needed, self.pixels.stat().st_size))

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """Keep where the work stands, once in a while."""
        begun = time.monotonic()
        if begun - self._kept_at < max(KEEP_SECONDS, KEEP_RATIO * self._took):
            return
        self.canvas.written.close()  # what it holds is then in the file
        self.canvas.written = rasterio_of(self.output).open(self.pixels, "r+")
        with write_aside(self.journal) as aside:
            torch.save({"identity": self.identity, "state": state()}, aside)
        self._kept_at = time.monotonic()
        self._took = self._kept_at - begun

    def write_mask(self, source: Any) -> None:
        """Write where the source has data, where no nodata value says so."""
        for window in _strips(source.shape) if self.canvas.has_mask else ():
            self.canvas.written.write_mask(source.dataset_mask(window=window) > 0, window=window)

    def publish(self, source: Any, cog: bool) -> None:
        """Write the result, compressed: each block once. Raise `OSError` where it does not come back as it is."""
        rasterio, profile = rasterio_of(self.output), self.canvas.profile()
        layout = () if cog else ("driver", "tiled", "blockxsize", "blockysize")
        options = {key: profile[key] for key in ("compress", "BIGTIFF", *layout) if key in profile}
        if cog:
            options = {"compress": "deflate", **options, "driver": "COG", "blocksize": 512}
        self.canvas.written.close()
        with write_aside(self.output) as aside:
            rasterio.shutil.copy(self.pixels, aside, **options)
            with rasterio.open(self.pixels) as pixels, rasterio.open(aside) as made:  # a full disk is not always told
                for window in _strips(source.shape):
                    alike = [np.array_equal(*(raster.dataset_mask(window=window) > 0 for raster in (source, made)))]
                    for band in made.indexes:
                        before, after = (raster.read(band, window=window) for raster in (pixels, made))
                        alike.append(np.array_equal(before, after, equal_nan=True))
                    if not all(alike):
                        raise OSError("what was written does not come back: is the disk full?")
        self.journal.unlink(missing_ok=True)


def _strips(shape: tuple[int, int]) -> Iterator[Window]:
    height, width = shape
    return (((top, min(top + STRIP, height)), (0, width)) for top in range(0, height, STRIP))
