"""Images of any kind, one by one → pixels that fit the generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pix2pix_hub.data.pixels import Decoded, PixelArray, from_memory, read_image, to_tensor
from pix2pix_hub.export import FULL_SCALE, PICTURE_MODES
from pix2pix_hub.images import PixelFormat, to_model_range, to_unit_range
from pix2pix_hub.util import UserError

ARRAY_LAYOUT = "arrays are (height, width, channels): give image.transpose(1, 2, 0), or a tensor (C, H, W)."
TENSOR_LAYOUT = "tensors are (channels, height, width): give image.permute(2, 0, 1), or an array (H, W, C)."
LEAST_SIDE = 8  # pixels: what is smaller may be channels
TOLERANCE = 1e-3  # how far floats may leave their range: rounding of whatever made them


@dataclass(frozen=True, eq=False)
class Prepared:
    """One image that fits a network, not yet in its value range: that is done piece by piece, to save memory."""

    stored: Tensor  # (C, H, W) of stored values; without a format, of the network's channels in [-1, 1]
    format: PixelFormat | None
    depth: str | None  # "uint8", "uint16", "float32" where that is not the depth of the images trained on
    name: str  # for errors

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.stored.shape[1], self.stored.shape[2]

    def piece(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The pixels at some rows and columns: float32 `(C, len(rows), len(columns))` in [-1, 1]."""
        pixels = self.stored[:, rows[:, None], columns]
        return pixels if self.format is None else to_model_range(pixels, self.format)


AnyImage = Image.Image | str | Path | NDArray | Tensor | Prepared


def prepare(image: AnyImage, format: PixelFormat, name: str) -> Prepared:
    """Fit one image to what training read, converting its colours as training did.

    Args:
        image: a PIL image, a path, an array `(H, W)` or `(H, W, C)`, a tensor `(C, H, W)`, or what this made. Floats
            are in [0, 1] in arrays and in [-1, 1] in tensors; where `format` is of floats, arrays hold values as
            stored. Classes come as values or one-hot.
        format: of the images trained on.
        name: what errors call the image.

    Raises:
        UserError: says what came and what was expected.
    """
    if isinstance(image, Prepared):
        return image
    if isinstance(image, Tensor):
        return _from_tensor(image.detach().cpu(), format, name)
    if isinstance(image, str | Path):
        return prepare_decoded(read_image(Path(image), name), format, name)
    if not isinstance(image, Image.Image | np.ndarray):
        raise UserError(f"{name} is {type(image).__name__}; expected a PIL image, a path, an array or a tensor.")
    if isinstance(image, np.ndarray):
        _check_layout(image.shape, format, name, channels=2, spatial=0, words=ARRAY_LAYOUT)
    if isinstance(image, np.ndarray) and format.mode == "labels" and image.shape[2:] == (format.channels,) != (1,):
        return _from_one_hot(image, name)
    return prepare_decoded(_as_picture(from_memory(image, name), format), format, name)


def prepare_decoded(decoded: Decoded, format: PixelFormat, name: str) -> Prepared:
    """`prepare` for what a file held. Where values of one depth can stand for those of another, they do."""
    depth = "uint8" if isinstance(decoded, Image.Image) else str(decoded.values.dtype)
    if other_depth(format, depth) is None:
        return Prepared(to_tensor(decoded, format, name), format, None, name)
    if depth == "float32" and isinstance(decoded, PixelArray):
        _check_range(decoded.values, 0.0, name)
    scaled = with_depth(format, depth)
    return Prepared(to_tensor(decoded, scaled, name), scaled, depth, name)


def _from_one_hot(array: NDArray, name: str) -> Prepared:
    """`(H, W, classes)` in [0, 1]."""
    values = np.ascontiguousarray(array, np.float32)
    _check_range(values, 0.0, name)
    return Prepared(torch.from_numpy(values * 2.0 - 1.0).permute(2, 0, 1), None, None, name)


def _from_tensor(tensor: Tensor, format: PixelFormat, name: str) -> Prepared:
    if tensor.ndim != 3:
        raise UserError(f"{name} has shape {tuple(tensor.shape)}; expected (C, H, W) or a batch (N, C, H, W).")
    _check_layout(tensor.shape, format, name, channels=0, spatial=2, words=TENSOR_LAYOUT)
    if not tensor.is_floating_point():
        return prepare(tensor.permute(1, 2, 0).numpy(), format, name)
    values = tensor.float()
    _check_range(values.numpy(), -1.0, name)
    if values.shape[0] == format.channels:
        return Prepared(values, None, None, name)
    if format.mode == "labels":
        raise UserError(f"{name} has {values.shape[0]} channels; expected {format.channels}, one for each class.")
    array = PixelArray(to_unit_range(values).permute(1, 2, 0).numpy(), "channels")
    floats = with_depth(format, "float32")
    return Prepared(to_tensor(_as_picture(array, floats), floats, name), floats, None, name)


def _check_layout(
    shape: Sequence[int], format: PixelFormat, name: str, *, channels: int, spatial: int, words: str
) -> None:
    """Raise `UserError` where axis `spatial` must be that of the channels, which should be axis `channels`."""
    fitting = {format.channels, *(range(1, 5) if format.mode in PICTURE_MODES else ())}
    if len(shape) != 3 or min(shape[1], shape[channels]) < LEAST_SIDE:
        return
    if shape[channels] not in fitting and shape[spatial] in fitting:
        raise UserError(f"{name} has shape {tuple(shape)}; {words}")


def _as_picture(decoded: Decoded, format: PixelFormat) -> Decoded:
    """An array in memory says nothing of its channels' meaning: 1, 2, 3 and 4 are a picture's where one is expected."""
    if isinstance(decoded, Image.Image):
        return decoded
    values = decoded.values
    if format.mode not in PICTURE_MODES:
        return PixelArray(values, "channels") if format.mode == "channels" else decoded
    kind = {1: "gray", 2: "gray", 3: "rgb", 4: "rgba"}.get(values.shape[2], "channels")
    if values.dtype == np.uint8 and kind != "channels":  # Pillow converts it, as it converted what was trained on
        return Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    return PixelArray(values, kind)


def with_depth(format: PixelFormat, dtype: str) -> PixelFormat:
    """The same at another depth, of which all values are used."""
    return replace(format, dtype=dtype, low=0.0, high=FULL_SCALE[dtype])


def other_depth(format: PixelFormat, depth: str) -> str | None:
    """The depth of an image where it is another than that of the images trained on, and is to be kept."""
    return None if format.mode == "labels" or format.dtype in (depth, "float32") else depth


def output_format(depth: str | None, target: PixelFormat) -> PixelFormat:
    """How what is made of an image is to be stored: as the targets were, but at the depth of an image of another."""
    keeps = depth is None or target.mode == "labels" or target.dtype == "float32"
    return target if keeps else with_depth(target, str(depth))


def _check_range(values: NDArray, low: float, name: str) -> None:
    if not values.size:
        raise UserError(f"{name} has no pixels.")
    smallest, largest = float(values.min()), float(values.max())
    if not (low - TOLERANCE <= smallest and largest <= 1.0 + TOLERANCE):  # so is NaN
        raise UserError(f"{name} holds floats from {smallest:g} to {largest:g}; expected them in [{low:g}, 1].")
