"""Images between files, bytes and tensors: the only module that converts value ranges.

Stored images are `(C, H, W)` in a `PixelFormat` (uint8 in [0, 255] where nothing else is said); networks see float32
in [-1, 1]; metrics see [0, 1].
"""

from __future__ import annotations

import colorsys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from pix2pix_hub.util import UserError, counted, write_aside

if TYPE_CHECKING:
    from collections.abc import Sequence

EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
TRANSPARENT_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


@dataclass(frozen=True)
class PaletteColor:
    """One of the few colours that label maps and drawings are made of."""

    color: tuple[int, int, int]  # red, green, blue in [0, 255]
    name: str | None  # of its class, where it is known
    share: float  # of the pixels, in [0, 1]


@dataclass(frozen=True)
class PixelFormat:
    """How the images of one side are stored, and with that how they reach [-1, 1] and come back from there.

    `preprocessor_config.json` keeps one for each side, so that inference repeats what training did.
    """

    mode: str = "rgb"  # "gray", "rgb", "rgba", "channels" (any number), "labels" (one channel of class values)
    channels: int = 3  # that the networks see; for labels the number of classes
    dtype: str = "uint8"  # as stored: "uint8", "uint16" or "float32"
    low: float = 0.0  # stored values that become -1 …
    high: float = 255.0  # … and 1
    classes: tuple[int, ...] = ()  # labels: the stored values, in the order of the channels
    colors: tuple[tuple[int, int, int], ...] = ()  # labels: what to show each class in
    # What a drawing tool offers, by share, largest first; empty for photos. No part of how pixels are stored.
    palette: tuple[PaletteColor, ...] = field(default=(), compare=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `bit_depth` is there for readers."""
        depth = {"uint8": 8, "uint16": 16, "float32": 32}[self.dtype]
        content = {**asdict(self), "bit_depth": depth}
        return {name: value for name, value in content.items() if value != ()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PixelFormat:
        """What `to_dict` gave, after JSON made lists of its tuples."""
        values = {name: value for name, value in values.items() if name != "bit_depth"}
        values["classes"] = tuple(values.get("classes", ()))
        values["colors"] = tuple((red, green, blue) for red, green, blue in values.get("colors", ()))
        values["palette"] = tuple(
            PaletteColor((red, green, blue), entry["name"], entry["share"])
            for entry in values.get("palette", ())
            for red, green, blue in [entry["color"]]
        )
        return cls(**values)

    def describe(self) -> str:
        """ "8-bit RGB", "16-bit gray", "float 13-channel (0 … 1)", "labels of 12 classes"."""
        if self.mode == "labels":
            return f"labels of {counted(self.channels, 'class')}"
        kind = (
            f"{self.channels}-channel"
            if self.mode == "channels"
            else {"gray": "gray"}.get(self.mode, self.mode.upper())
        )
        if self.dtype == "float32":
            return f"float {kind} ({self.low:g} … {self.high:g})"
        return f"{self.dtype.removeprefix('uint')}-bit {kind}"


RGB = PixelFormat()


def to_model_range(image: Tensor, format: PixelFormat = RGB) -> Tensor:
    """Stored values `(..., C, H, W)` → float32 in [-1, 1]; labels `(..., 1, H, W)` → a channel a class, one-hot.

    Raises:
        UserError: a label that is none of the format's classes.
    """
    if format.mode == "labels":
        return _one_hot(image, format)
    if format.dtype == "uint8":
        assert image.dtype == torch.uint8, f"uint8 in [0, 255] expected, not {image.dtype}"
        return image.to(torch.float32).div_(127.5).sub_(1.0)
    return stored_to_unit(image, format).mul_(2.0).sub_(1.0)


def from_model_range(tensor: Tensor, format: PixelFormat = RGB) -> Tensor:
    """Float `(..., C, H, W)` in [-1, 1] → the format's dtype and values: clamped, then rounded.

    Labels become the value of the largest class, `(..., 1, H, W)`. Undoes `to_model_range` exactly, but for the last
    digits of float formats.
    """
    if format.mode == "labels":
        return torch.tensor(format.classes, dtype=torch.uint8)[tensor.detach().argmax(-3, keepdim=True).cpu()]
    values = tensor.detach().to(torch.float32).clamp(-1.0, 1.0).add(1.0)
    if format.dtype == "float32":
        return values.mul_((format.high - format.low) / 2.0).add_(format.low)
    rounded = values.mul_(format.high / 2.0).round_()
    return rounded.to(torch.uint8) if format.dtype == "uint8" else rounded.to(torch.int32).to(torch.uint16)


def stored_to_unit(image: Tensor, format: PixelFormat) -> Tensor:
    """Stored values of 16-bit and float formats → float32 in [0, 1], which is what transforms work on."""
    assert format.mode != "labels" and format.dtype != "uint8", f"{format} needs no such step"
    return image.to(torch.float32).sub(format.low).div_(format.high - format.low)


def unit_to_model(image: Tensor) -> Tensor:
    """Float in [0, 1] → [-1, 1]."""
    return image * 2.0 - 1.0


def _one_hot(labels: Tensor, format: PixelFormat) -> Tensor:
    """`(..., 1, H, W)` of class values → `(..., C, H, W)` of -1 and, in the channel of the class, 1."""
    table = torch.full((256,), -1, dtype=torch.int64)
    table[list(format.classes)] = torch.arange(len(format.classes))
    channels = table[labels.squeeze(-3).to(torch.int64)]
    if bool((channels < 0).any()):
        unknown = sorted(set(labels.unique().tolist()) - set(format.classes))
        raise UserError(f"labels {unknown} are none of the classes {list(format.classes)} that were found before.")
    return torch.nn.functional.one_hot(channels, len(format.classes)).movedim(-1, -3).float().mul_(2.0).sub_(1.0)


def to_unit_range(tensor: Tensor) -> Tensor:
    """Float in [-1, 1] → the same dtype in [0, 1]. Differentiable; nothing is clamped."""
    return (tensor + 1.0) / 2.0


def pil_to_tensor(image: Image.Image, name: str = "image") -> Tensor:
    """8-bit PIL image of any mode → uint8 `(3, H, W)`, RGB.

    The EXIF orientation is applied, gray is repeated to three channels, transparency is laid over white.

    Raises:
        UserError: the mode is not an 8-bit one (16-bit gray, float); the text starts with `name`.
    """
    if image.mode not in EIGHT_BIT_MODES:
        raise UserError(
            f"{name} has pixels of mode {image.mode!r}; expected 8 bits a channel "
            "(gray, palette, RGB, RGBA or CMYK). Save it as 8-bit PNG."
        )
    try:
        rgb = over_white(ImageOps.exif_transpose(image))
    except Exception as error:  # damaged EXIF blocks and palettes raise almost anything
        raise UserError(f"{name} could not be converted to RGB ({error}). Save it again as PNG.") from error
    # bytearray: the tensor needs memory that it may write to
    flat = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    return flat.view(rgb.height, rgb.width, 3).permute(2, 0, 1).contiguous()


def over_white(image: Image.Image) -> Image.Image:
    """Any 8-bit mode → RGB; where the image is transparent, white shows."""
    if image.mode not in TRANSPARENT_MODES and "transparency" not in image.info:
        return image.convert("RGB")
    straight = image.convert("LA") if image.mode == "La" else image  # Pillow has no direct step from La to RGBA
    rgba = straight.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def tensor_to_pil(image: Tensor) -> Image.Image:
    """uint8 `(1, H, W)` or `(3, H, W)` → PIL image of mode L or RGB.

    Raises:
        UserError: another number of channels, which a PIL image cannot show.
    """
    assert image.dtype == torch.uint8 and image.ndim == 3, f"uint8 (C, H, W) expected, not {image.dtype} {image.shape}"
    if image.shape[0] not in (1, 3):
        raise UserError(f"An image of {image.shape[0]} channels came; PNG and JPEG hold 1 (gray) or 3 (RGB).")
    pixels = image.detach().cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0].copy() if image.shape[0] == 1 else pixels.copy())


def eight_bit(picture: Image.Image | NDArray[Any]) -> Image.Image:
    """Any stored image, a PIL image or an array `(H, W[, C])`, → RGB for the eye: 16 bits lose their lower half, floats
    go from the smallest to the largest value, and of many channels the first (three) are shown."""
    if isinstance(picture, Image.Image) and picture.mode in EIGHT_BIT_MODES:
        return over_white(picture)
    values = np.asarray(picture)
    if values.dtype == np.uint16:
        values = values >> 8
    elif values.dtype != np.uint8:
        low, high = float(values.min()), float(values.max())
        values = (values - low) / max(high - low, 1e-12) * 255.0
    planes = values if values.ndim == 2 else values[:, :, :3] if values.shape[2] >= 3 else values[:, :, 0]
    return Image.fromarray(planes.astype(np.uint8)).convert("RGB")


def save_grid(
    rows: Sequence[tuple[Tensor, ...]], path: str | Path, formats: Sequence[PixelFormat] | None = None
) -> None:
    """Write rows of images (source | generated | target) as one picture, with 2 pixels of white between them.

    Args:
        rows: as many `(C, H, W)` tensors in [-1, 1] in each row, all of one height and width. Three channels show as
            they are, one or two as gray (the first), more as their first three, labels in colours of their classes.
        path: the file, its suffix the format. Written aside, then renamed: a reader never sees half a file.
        formats: of the columns; None: no labels among them.
    """
    from torchvision.utils import make_grid  # a second to import, and only training draws grids

    assert rows, "save_grid needs at least one row"
    columns = formats or [RGB] * len(rows[0])
    images = torch.stack([displayed(image, column) for row in rows for image, column in zip(row, columns, strict=True)])
    picture = make_grid(images, nrow=len(rows[0]), padding=2, pad_value=255)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as partial:
        tensor_to_pil(picture).save(partial, format=Image.registered_extensions()[path.suffix.lower()])


def displayed(image: Tensor, column: PixelFormat) -> Tensor:
    """`(C, H, W)` in [-1, 1] → uint8 `(3, H, W)` on the CPU."""
    if column.mode == "labels":
        colors = torch.tensor(column.colors or distinct_colors(column.channels), dtype=torch.uint8)
        return colors[image.argmax(0).cpu()].permute(2, 0, 1)
    shown = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    return from_model_range(shown).cpu()


def distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """Colours for classes that came without: around the colour circle."""
    hues = (colorsys.hsv_to_rgb(index / count, 0.85, 1.0 - 0.4 * (index % 2)) for index in range(count))
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in hues]
