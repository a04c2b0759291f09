"""What the generator made → the kind of image that was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pix2pix_hub.data.pixels import Decoded, PixelArray, from_memory
from pix2pix_hub.export import PICTURE_MODES
from pix2pix_hub.images import PixelFormat, from_model_range
from pix2pix_hub.util import UserError

OUTPUT_TYPES = ("pil", "numpy", "torch")
STORED_DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}
PIL_DTYPES = {("uint8", 1), ("uint8", 3), ("uint8", 4), ("uint16", 1), ("float32", 1)}  # that Pillow has modes for


@dataclass(frozen=True)
class Kind:
    """What an image comes as, and goes back as."""

    type: str  # one of OUTPUT_TYPES
    stored: bool = False  # a tensor of stored values, not of [-1, 1]
    keeps_axis: bool = False  # an array (H, W, 1), not (H, W)

    @classmethod
    def of(cls, image: Any) -> Kind:
        """The kind of an image that came."""
        if isinstance(image, Tensor):
            return cls("torch", stored=not image.is_floating_point())
        if isinstance(image, np.ndarray):
            return cls("numpy", keeps_axis=image.ndim == 3 and image.shape[2] == 1)
        return cls("pil")

    def overridden(self, output_type: str | None) -> Kind:
        """The kind that is asked for instead.

        Raises:
            UserError: there is no such type.
        """
        if output_type is None or output_type == self.type:
            return self
        if output_type not in OUTPUT_TYPES:
            raise UserError(f"output_type is {output_type!r}; expected one of {', '.join(OUTPUT_TYPES)}, or None.")
        return Kind(output_type)


class Canvas:
    """The generated image, allocated once in the dtype that it is handed on in.

    Args:
        size: height and width.
        channels: that the generator makes.
        format: how the pixels are to be stored.
        kind: what is to come of it.
    """

    def __init__(self, size: tuple[int, int], channels: int, format: PixelFormat, kind: Kind) -> None:
        self.format, self.kind = format, kind
        self.in_model_range = kind.type == "torch" and not kind.stored
        if self.in_model_range:
            self.pixels = torch.empty(channels, *size)
        else:
            planes = 1 if format.mode == "labels" else channels
            self.pixels = torch.empty(*size, planes, dtype=STORED_DTYPES[format.dtype])

    def place(self, top: int, left: int, made: Tensor) -> None:
        """Put `(C, h, w)` in [-1, 1] so that its corner is there; what lies outside is left away."""
        height, width = self.pixels.shape[1:] if self.in_model_range else self.pixels.shape[:2]
        rows = slice(max(0, top), max(0, min(height, top + made.shape[1])))
        columns = slice(max(0, left), max(0, min(width, left + made.shape[2])))
        inside = made[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        if self.in_model_range:
            self.pixels[:, rows, columns] = inside
        else:
            self.pixels[rows, columns] = from_model_range(inside, self.format).permute(1, 2, 0)

    def finish(self) -> Any:
        """A PIL image, or an array where Pillow has no mode; an array; or a tensor `(C, H, W)`."""
        if self.kind.type == "torch":
            return self.pixels if self.in_model_range else self.pixels.permute(2, 0, 1).contiguous()
        values = self.pixels.numpy()
        flat = values[:, :, 0] if values.shape[2] == 1 and not self.kind.keeps_axis else values
        if self.kind.type == "pil" and (self.format.dtype, values.shape[2]) in PIL_DTYPES:
            return _to_pil(flat, self.format)
        return flat


def decoded_result(made: Image.Image | NDArray[Any], target: PixelFormat) -> Decoded:
    """What a pipeline made of a file → what can be written."""
    decoded = from_memory(made, "the result")
    if isinstance(decoded, Image.Image):
        return decoded
    return PixelArray(decoded.values, target.mode if target.mode in PICTURE_MODES else "channels")


def _to_pil(values: NDArray[Any], format: PixelFormat) -> Image.Image:
    """`(H, W)` or `(H, W, C)` → L, RGB, RGBA, I;16, F, or P where the format's classes have colours."""
    image = Image.fromarray(values)
    if format.mode == "labels" and format.colors:
        palette = [0] * 768
        for value, color in zip(format.classes, format.colors, strict=True):
            palette[3 * value : 3 * value + 3] = color
        image.putpalette(palette)
    return image


def name_of(image: Any, number: int, count: int) -> str:
    """What errors call an image: its file, else its place among those given."""
    if isinstance(image, str | Path):
        return str(image)
    file = getattr(image, "filename", "")
    return str(file) if file else "the image" if count == 1 else f"image {number}"
