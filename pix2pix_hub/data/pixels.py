"""Image files of any kind → pixels as stored: 8-bit pictures through Pillow, deeper ones and many channels as arrays.

What a file is is told by its first bytes, not by its name:

    8-bit PNG, JPEG, WebP, BMP, GIF, TIFF of one page     PIL image, upright (EXIF orientation applied)
    16-bit PNG of any colour type                         array (left alone, Pillow cuts colours to 8 bits)
    .npy of shape (H, W) or (H, W, C)                     array, never unpickled
    TIFF of several pages or bands, 16 bits, floats       array

Arrays are `(H, W, C)`, uint8, uint16 or float32.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from pix2pix_hub.data.headers import MAX_CHANNELS, PNG_MAGIC, TIFF_MAGIC, open_image, read_bytes, refuse_too_large
from pix2pix_hub.data.tiff import read_bands
from pix2pix_hub.images import EIGHT_BIT_MODES, TRANSPARENT_MODES, PixelFormat, over_white, pil_to_tensor
from pix2pix_hub.util import UserError

_GRAY_MODES = ("1", "L", "LA", "La")
ROWS = 256  # of a large image that are converted at a time
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's


@dataclass(frozen=True, eq=False)
class PixelArray:
    """What Pillow has no mode for."""

    values: NDArray[Any]  # (H, W, C) uint8, uint16 or float32
    kind: str  # "gray" (with or without alpha), "rgb", "rgba" or "channels"


Decoded = Image.Image | PixelArray


@dataclass(frozen=True)
class Stored:
    """How one image is stored."""

    kind: str  # "gray", "rgb", "rgba" or "channels"
    channels: int
    dtype: str  # "uint8", "uint16" or "float32"
    low: float = 0.0  # smallest and largest value; looked for in floats only
    high: float = 0.0
    values: frozenset[int] = frozenset()  # looked for in labels only
    colors: tuple[tuple[int, int, int], ...] = ()  # the palette, where there is one

    @property
    def family(self) -> tuple[str, int]:
        """Images of one family can be converted into each other: pictures of one depth, arrays of one shape."""
        return self.dtype, self.channels if self.kind == "channels" else 0


# -------------------------------------------------------------------------------------------------------- reading


def read_image(content: str | Path | bytes, name: str) -> Decoded:
    """A file or its bytes → a PIL image of an 8-bit mode, upright, or an array `(H, W, C)`.

    Raises:
        UserError: missing, empty, damaged, no image, larger than Pillow's `MAX_IMAGE_PIXELS` or a quarter of the
            machine's memory, or of a kind of number that is not read; the text starts with `name`.
    """
    data = read_bytes(content, name)
    try:
        if data.startswith(b"\x93NUMPY"):
            return _as_stored_array(_read_npy(data, name), name)
        if data.startswith(PNG_MAGIC) and data[24:25] == b"\x10" and data[25:26] in b"\2\4\6":
            return _read_deep_png(data, name)
        if data.startswith(TIFF_MAGIC) and (array := read_bands(data, name)) is not None:
            return _as_stored_array(array, name)
        return from_memory(open_image(data, name), name)
    except UserError:
        raise
    except Exception as error:  # damaged files raise almost anything
        raise UserError(f"{name} is damaged or truncated ({error}).") from error


def from_memory(image: Image.Image | NDArray[Any], name: str) -> Decoded:
    """An image that is open already, or an array `(H, W)` or `(H, W, C)` of any real numbers, as `read_image` gives it.

    Raises:
        UserError: another shape, numbers that are not read, or a file behind a lazy PIL image that is damaged.
    """
    if not isinstance(image, Image.Image):
        return _as_stored_array(image, name)
    if 0 in image.size:
        raise UserError(f"{name} has no pixels (it is {image.height}x{image.width}, height x width).")
    try:
        image.load()
        return _upright(image) if image.mode in EIGHT_BIT_MODES else _as_stored_array(_deep_pixels(image), name)
    except OSError as error:
        raise UserError(f"{name} is damaged or truncated ({error}).") from error


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image)


def _deep_pixels(image: Image.Image) -> NDArray[Any]:
    """Modes I;16, I and F; Pillow opens 16-bit gray files of some kinds as I."""
    array = np.asarray(_upright(image))
    if image.mode == "I" and array.min() >= 0 and array.max() <= 65535:
        return array.astype(np.uint16)
    return array


def _read_npy(data: bytes, name: str) -> NDArray[Any]:
    """The array of a .npy file. Its header is believed only as far as the bytes reach; pickles are refused."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise UserError(f"{name} holds Python objects, which are never loaded; expected numbers.")
    if min(shape, default=0) < 0:
        raise UserError(f"{name} is damaged: its shape is {'x'.join(map(str, shape))}.")
    expected, present = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if present < expected:
        raise UserError(f"{name} is damaged or truncated ({present} of {expected} bytes of pixels).")
    array = np.frombuffer(data, dtype, math.prod(shape), stream.tell())
    return array.reshape(shape, order="F" if fortran else "C")


def _read_deep_png(data: bytes, name: str) -> Decoded:
    """16-bit PNG with colours or alpha, of which Pillow unpacks the high bytes, then the low ones."""
    if data[25:26] == b"\4":  # gray and alpha, 4 bytes a pixel as RGBA has: high, low, high, low
        return PixelArray(np.asarray(_unpacked_png(data, "RGBA", name)).view(">u2").astype(np.uint16), "gray")
    mode = "RGB" if data[25:26] == b"\2" else "RGBA"
    values: NDArray[Any] | None = None  # (H, W, C, 2): low and high byte
    for byte, order in enumerate("LB"):
        image = _unpacked_png(data, f"{mode};16{order}", name)
        values = np.empty((image.height, image.width, len(mode), 2), np.uint8) if values is None else values
        for top in range(0, image.height, ROWS):
            rows = image.crop((0, top, image.width, min(top + ROWS, image.height)))
            values[top : top + ROWS, :, :, byte] = np.asarray(rows)
        del rows, image  # before the other half is unpacked
    assert values is not None
    return PixelArray(values.view("<u2")[..., 0].astype(np.uint16, copy=False), mode.lower())


def _unpacked_png(data: bytes, layout: str, name: str) -> Image.Image:
    """Upright, with the pixels' bytes read as `layout`, one of Pillow's raw modes."""
    image = open_image(data, name)
    image.tile = [image.tile[0]._replace(args=layout)]
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _as_stored_array(array: NDArray[Any], name: str) -> PixelArray:
    """`(H, W)` or `(H, W, C)` of any real numbers → `(H, W, C)`, uint8, uint16 or float32.

    Booleans become 0 and 255; integers of other kinds and doubles become float32.
    """
    shape = "x".join(map(str, array.shape))
    if 0 in array.shape:
        raise UserError(f"{name} has no pixels (its shape is {shape}).")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] > MAX_CHANNELS):
        raise UserError(f"{name} has shape {shape}; expected (H, W) or (H, W, C) with up to {MAX_CHANNELS} channels.")
    if array.dtype.kind not in "buif":
        raise UserError(f"{name} holds {array.dtype}; expected uint8, uint16 or float numbers.")
    refuse_too_large(array.shape[0], array.shape[1], name)
    array = array[:, :, None] if array.ndim == 2 else array
    return PixelArray(_stored_numbers(array, name), {1: "gray", 3: "rgb"}.get(array.shape[2], "channels"))


def _stored_numbers(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(floats).all():
        raise UserError(f"{name} holds NaN, infinite or too large numbers.")
    return floats


# ---------------------------------------------------------------------------------------------------- describing


def size_of(decoded: Decoded) -> tuple[int, int]:
    """Height and width."""
    return (decoded.height, decoded.width) if isinstance(decoded, Image.Image) else decoded.values.shape[:2]


def halves(decoded: Decoded) -> tuple[Decoded, Decoded]:
    """Left and right half of an even width."""
    height, width = size_of(decoded)
    if isinstance(decoded, Image.Image):
        return decoded.crop((0, 0, width // 2, height)), decoded.crop((width // 2, 0, width, height))
    left, right = decoded.values[:, : width // 2], decoded.values[:, width // 2 :]
    return PixelArray(left, decoded.kind), PixelArray(right, decoded.kind)


def stored_as(decoded: Decoded, labels: bool) -> Stored:
    """How an image is stored; `labels`: look for the class values, too."""
    values = frozenset(np.unique(label_values(decoded)).tolist()) if labels and is_single(decoded) else frozenset()
    if isinstance(decoded, Image.Image):
        transparent = decoded.mode in TRANSPARENT_MODES or "transparency" in decoded.info
        kind = "gray" if decoded.mode in _GRAY_MODES else "rgba" if transparent else "rgb"
        channels = {"gray": 1, "rgb": 3, "rgba": 4}[kind]
        return Stored(kind, channels, "uint8", values=values, colors=_palette(decoded) if labels else ())
    pixels = decoded.values
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.dtype == np.float32 else (0.0, 0.0)
    return Stored(decoded.kind, pixels.shape[2], str(pixels.dtype), low, high, values)


def is_single(decoded: Decoded) -> bool:
    """Whether there is one value a pixel, which can be a class."""
    return decoded.mode in ("1", "L", "P") if isinstance(decoded, Image.Image) else decoded.values.shape[2] == 1


def label_values(decoded: Decoded) -> NDArray[Any]:
    """Class values, `(H, W, 1)` where the image can be labels: palette indices, gray values."""
    if isinstance(decoded, Image.Image):
        return np.asarray(decoded.convert("L") if decoded.mode == "1" else decoded)[:, :, None]
    return decoded.values


def _palette(image: Image.Image) -> tuple[tuple[int, int, int], ...]:
    flat = (image.getpalette("RGB") or []) if image.mode == "P" else []
    return tuple((red, green, blue) for red, green, blue in zip(flat[::3], flat[1::3], flat[2::3], strict=True))


# ----------------------------------------------------------------------------------------------------- converting


def to_tensor(decoded: Decoded, format: PixelFormat, name: str) -> Tensor:
    """A decoded image → `(C, H, W)` of stored values: uint8 where the format is 8-bit (or labels), else float32.

    Raises:
        UserError: the image does not fit the format; the text starts with `name`.
    """
    stored = stored_as(decoded, labels=format.mode == "labels")
    if (misfit := misfit_of(stored, format)) is not None:
        raise UserError(f"{name} {misfit}")
    if format.mode == "labels":
        return torch.from_numpy(label_values(decoded).astype(np.uint8)).permute(2, 0, 1).contiguous()
    if isinstance(decoded, Image.Image):
        return _picture_to_tensor(decoded, format.mode, name)
    return _array_to_tensor(decoded.values, format)


def misfit_of(stored: Stored, format: PixelFormat) -> str | None:
    """Why an image stored so cannot be converted to `format`: the end of a sentence that starts with its name."""
    if format.mode != "labels":
        if stored.family == (format.dtype, format.channels if format.mode == "channels" else 0):
            return None
        has = PixelFormat(stored.kind, stored.channels, stored.dtype, stored.low, stored.high).describe()
        return f"is {has}, where {format.describe()} is expected."
    if not stored.values:
        return f"has {stored.channels} channels; labels need a palette image or one channel of class values."
    unknown = sorted(stored.values - set(format.classes))
    return f"holds the values {unknown[:8]}, none of the classes that were found before." if unknown else None


def _picture_to_tensor(image: Image.Image, mode: str, name: str) -> Tensor:
    if mode == "rgb":
        return pil_to_tensor(image, name)
    try:
        gray = mode == "gray"
        wanted = over_white(image).convert("L") if gray else _straight(image).convert("RGBA")
    except Exception as error:  # damaged palettes raise almost anything
        raise UserError(f"{name} could not be converted to {mode} ({error}). Save it again as PNG.") from error
    pixels = np.array(wanted)
    return torch.from_numpy(pixels[:, :, None] if gray else pixels).permute(2, 0, 1).contiguous()


def _straight(image: Image.Image) -> Image.Image:
    return image.convert("LA") if image.mode == "La" else image  # Pillow has no direct step from La to RGBA


def _array_to_tensor(array: NDArray[Any], format: PixelFormat) -> Tensor:
    """An array of the format's family → its channels, some rows at a time: a large one is held once as floats."""
    height, width, channels = array.shape
    eight_bits, as_it_is = format.dtype == "uint8", format.mode == "channels" or format.channels == channels
    wanted = channels if as_it_is else format.channels
    tensor = torch.empty(wanted, height, width, dtype=torch.uint8 if eight_bits else torch.float32)
    for top in range(0, height, ROWS):
        values = torch.from_numpy(array[top : top + ROWS].astype(np.float32)).permute(2, 0, 1)
        if not as_it_is:
            values = _with_channels(values, wanted, 255.0 if eight_bits else format.high)
        tensor[:, top : top + ROWS] = values.round() if eight_bits else values
    return tensor


def _with_channels(values: Tensor, channels: int, white: float) -> Tensor:
    """gray, gray with alpha, RGB or RGBA → `channels` of 1, 3 or 4; transparency shows white."""
    if values.shape[0] in (2, 4) and channels != 4:
        colour, alpha = values[:-1], values[-1:] / white
        values = colour * alpha + white * (1.0 - alpha)
    if values.shape[0] == 2:
        return torch.cat([values[:1].expand(3, -1, -1), values[1:]])
    if channels == 1:
        return (values * torch.tensor(_LUMA).view(3, 1, 1)).sum(0, keepdim=True)
    rgb = values.expand(3, -1, -1)
    return rgb if channels == 3 else torch.cat([rgb, torch.full_like(rgb[:1], white)])
