"""A raster with coordinates, of any size → the raster that a model makes of it, on the same ground.

Both are read and written through windows, on top of the exact tiling of `tiling.py`: in memory are a row of tiles, and
the inner map of the network.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.image.raster import Window, fill_of, looked_at, open_raster, rasterio_of, read_window
from pix2pix_hub.inference.pipeline import Canvas, Pix2PixPipeline, Prepared, prepare
from pix2pix_hub.util import PARTIAL_SUFFIX, UserError, write_aside

LAYOUT = ("driver", "tiled", "blockxsize", "blockysize")
LOSSLESS = ("deflate", "lzw", "zstd", "packbits", "lzma", "lerc")  # kept; any other compression becomes deflate


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
        """Write pixels, and where the source has no data that there is none."""
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        pixels, valid = values.numpy(), self._source.dataset_mask(window=window)
        if self.nodata is not None:
            if not np.isnan(self.nodata):  # no pixel with data may look as if it had none
                beside = self.nodata + 1 if self.nodata < self.format.high else self.nodata - 1
                pixels = np.where(pixels == self.nodata, np.array(beside, pixels.dtype), pixels)
            pixels = np.where(valid > 0, pixels, np.array(self.nodata, pixels.dtype))
        self.written.write(pixels, window=window)
        if self.has_mask:
            self.written.write_mask(valid > 0, window=window)

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
        tile_size, stochastic, seed, progress: of `Pix2PixPipeline.__call__`.

    Raises:
        UserError: a raster that cannot be read or does not fit the model; a result that could not be written.
    """
    rasterio, name = rasterio_of(file), str(file)
    if stochastic and seed is None:
        seed = int(torch.randint(2**62, ()))
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
            profile, bare = canvas.profile(), output.with_name(f"{output.name}.pixels{PARTIAL_SUFFIX}")
            plain = profile | {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": None}
            output.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                stack.callback(bare.unlink, missing_ok=True)
                stack.enter_context(rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True))
                try:
                    with rasterio.open(bare, "w", **plain) as canvas.written:
                        if canvas.format.mode == "labels" and canvas.format.colors:
                            colors = zip(canvas.format.classes, canvas.format.colors, strict=True)
                            canvas.written.write_colormap(1, dict(colors))
                        pipe.translate_large(source, canvas, tile_size=tile_size, seed=own_seed, progress=progress)
                    with write_aside(output) as aside:  # compressed once all is there: blocks are written once only
                        options = {key: profile[key] for key in profile if key in ("compress", "BIGTIFF")}
                        if cog:
                            options |= {
                                "driver": "COG",
                                "blocksize": 512,
                                "compress": profile.get("compress", "deflate"),
                            }
                        else:
                            layout = ("driver", "tiled", "blockxsize", "blockysize")
                            options |= {key: profile[key] for key in layout if key in profile}
                        rasterio.shutil.copy(bare, aside, **options)
                except rasterio.errors.RasterioError as error:
                    raise UserError(f"{output} could not be written ({error}).") from error
