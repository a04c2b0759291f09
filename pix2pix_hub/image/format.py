"""Formats of stored images, and the only conversions of value ranges.

Stored images are tensors `(C, H, W)` in a `PixelFormat` (uint8 in [0, 255] where nothing else is said); networks see
float32 in [-1, 1]; metrics see [0, 1].
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pix2pix_hub.image.read import FULL_SCALE, PICTURE_MODES, ROWS, Decoded
from pix2pix_hub.util import UserError, counted, write_aside

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's


@dataclass(frozen=True)
class PaletteColor:
    """One of the few colours that label maps and drawings are made of."""

    color: tuple[int, int, int]  # red, green, blue in [0, 255]
    name: str | None  # of its class, where it is known
    share: float  # of the pixels, in [0, 1]


@dataclass(frozen=True)
class PixelFormat:
    """The way the images of one side are stored, and with that how they reach [-1, 1] and come back from there.

    `preprocessor_config.json` keeps one for each side, so that inference repeats what training did.
    """

    mode: str = "rgb"  # "gray", "rgb", "rgba", "channels" (any number), "labels" (one channel of class values)
    channels: int = 3  # that the networks see; for labels the number of classes
    dtype: str = "uint8"  # as stored: "uint8", "uint16" or "float32"
    low: float = 0.0  # stored values that become -1 …
    high: float = 255.0  # … and 1
    classes: tuple[int, ...] = ()  # labels: the stored values, in the order of the channels
    colors: tuple[tuple[int, int, int], ...] = ()  # labels: what to show each class in
    clip: bool = False  # that range was chosen: values beyond it become its ends
    # What a drawing tool offers, by share, largest first; empty for photos. No part of how pixels are stored.
    palette: tuple[PaletteColor, ...] = field(default=(), compare=False)

    @property
    def family(self) -> tuple[str, int]:
        """Images of one family can be converted into each other: pictures of one depth, arrays of one shape."""
        return self.dtype, self.channels if self.mode == "channels" else 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `bit_depth` is there for readers."""
        content = {**asdict(self), "bit_depth": {"uint8": 8, "uint16": 16, "float32": 32}[self.dtype]}
        return {name: value for name, value in content.items() if value != () and value is not False}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PixelFormat:
        """Undo `to_dict`, after JSON made lists of its tuples; keys that are no fields are for others."""
        kept = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        kept["classes"] = tuple(kept.get("classes", ()))
        kept["colors"] = tuple(map(tuple, kept.get("colors", ())))
        entries = kept.get("palette", ())
        kept["palette"] = tuple(PaletteColor(tuple(one["color"]), one["name"], one["share"]) for one in entries)
        return cls(**kept)

    def describe(self) -> str:
        """ "8-bit RGB", "16-bit gray", "float 13-channel (0 … 1)", "labels of 12 classes"."""
        if self.mode == "labels":
            return f"labels of {counted(self.channels, 'class')}"
        kind = {"gray": "gray", "channels": f"{self.channels}-channel"}.get(self.mode, self.mode.upper())
        depth = "float" if self.dtype == "float32" else f"{self.dtype.removeprefix('uint')}-bit"
        span = f" ({self.low:g} … {self.high:g})" if self.clip or self.dtype == "float32" else ""
        return f"{depth} {kind}{span}"


RGB = PixelFormat()


# ------------------------------------------------------------------------------------------------- decoded → stored


def stored_as(decoded: Decoded, labels: bool) -> PixelFormat:
    """Describe how one image is stored.

    Args:
        decoded: as read.
        labels: find the class values, too, as `classes`, with all colours of the palette as `colors`.
    """
    pixels, values = decoded.values, decoded.labels if labels else None
    floats = pixels.dtype == np.float32
    return PixelFormat(
        decoded.kind,
        PICTURE_MODES.get(decoded.kind) or pixels.shape[2],
        str(pixels.dtype),
        float(pixels.min()) if floats else 0.0,
        float(pixels.max()) if floats else FULL_SCALE[str(pixels.dtype)],
        () if values is None else tuple(np.unique(values).tolist()),
        () if values is None or decoded.palette is None else tuple(map(tuple, decoded.palette[:, :3].tolist())),
    )


def misfit_of(stored: PixelFormat, format: PixelFormat) -> str | None:
    """Say why an image stored so cannot be converted to `format`: the end of a sentence that starts with its name."""
    if format.mode != "labels":
        fits = stored.family == format.family
        return None if fits else f"is {stored.describe()}, where {format.describe()} is expected."
    if not stored.classes:
        return f"has {stored.channels} channels; labels need a palette image or one channel of class values."
    unknown = sorted({*stored.classes} - {*format.classes})
    return f"holds the values {unknown[:8]}, none of the classes that were found before." if unknown else None


def to_tensor(decoded: Decoded, format: PixelFormat, name: str) -> Tensor:
    """A decoded image → `(C, H, W)` of stored values: uint8 where the format is 8-bit (or labels), else float32.

    Gray is repeated where colours are wanted, and transparency shows white.

    Raises:
        UserError: the image does not fit the format; the text starts with `name`.
    """
    if (misfit := misfit_of(stored_as(decoded, labels=format.mode == "labels"), format)) is not None:
        raise UserError(f"{name} {misfit}")
    if format.mode == "labels":
        assert decoded.labels is not None
        values = decoded.labels.astype(np.uint8)
    elif format.dtype != "uint8":
        return _deep_tensor(decoded.values, format)
    elif decoded.palette is None and format.channels == decoded.values.shape[2]:
        values = np.require(decoded.values, requirements="W")  # as PyTorch demands
    elif format.mode == "rgba":
        values = np.array(decoded.convert("RGBA"))
    else:
        values = np.array(decoded.over_white().convert("L" if format.mode == "gray" else "RGB"))
    values = values if values.ndim == 3 else values[:, :, None]
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()


def _deep_tensor(array: NDArray[Any], format: PixelFormat) -> Tensor:
    """16 bits or floats → float32, some rows at a time: a large image is held once as floats."""
    height, width, channels = array.shape
    tensor = torch.empty(format.channels, height, width)
    for top in range(0, height, ROWS):
        values = torch.from_numpy(array[top : top + ROWS].astype(np.float32)).permute(2, 0, 1)
        if channels != format.channels:
            values = _with_channels(values, format)
        tensor[:, top : top + ROWS] = values
    return tensor


def _with_channels(values: Tensor, format: PixelFormat) -> Tensor:
    """Gray, gray with alpha, RGB or RGBA → the 1, 3 or 4 channels of the format; transparency shows white."""
    channels, white = format.channels, format.high
    if values.shape[0] in (2, 4) and channels != 4:
        colour, alpha = values[:-1], values[-1:] / (FULL_SCALE[format.dtype] if format.clip else white)
        values = colour * alpha + white * (1.0 - alpha)
    if values.shape[0] == 2:
        return torch.cat([values[:1].expand(3, -1, -1), values[1:]])
    if channels == 1:
        return (values * torch.tensor(LUMA).view(3, 1, 1)).sum(0, keepdim=True)
    rgb = values.expand(3, -1, -1)
    return rgb if channels == 3 else torch.cat([rgb, torch.full_like(rgb[:1], white)])


# ---------------------------------------------------------------------------------------------------- value ranges


def to_model_range(image: Tensor, format: PixelFormat = RGB) -> Tensor:
    """Stored values `(..., C, H, W)` → float32 in [-1, 1].

    Labels `(..., 1, H, W)` → a channel a class: 1 in the channel of the pixel's class, -1 in all others.

    Raises:
        UserError: a label that is none of the format's classes; on a CPU, where images are decoded and looked at.
    """
    if format.mode == "labels":
        classes = torch.tensor(format.classes, dtype=torch.uint8).view(-1, 1, 1)
        chosen = image == classes.to(image.device, non_blocking=True)
        if image.device.type == "cpu" and not bool(chosen.any(-3).all()):  # an accelerator would have to be waited for
            unknown = sorted(set(image.unique().tolist()) - set(format.classes))
            raise UserError(f"labels {unknown} are none of the classes {list(format.classes)} that were found before.")
        return chosen.float().mul_(2.0).sub_(1.0)
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
    rounded = values.mul_((format.high - format.low) / 2.0).add_(format.low).round_()
    return rounded.to(torch.uint8) if format.dtype == "uint8" else rounded.to(torch.int32).to(torch.uint16)


def stored_to_unit(image: Tensor, format: PixelFormat) -> Tensor:
    """Stored values of 16-bit and float formats → float32 in [0, 1], which is what transforms work on; clipped where
    the range was chosen."""
    assert format.mode != "labels" and format.dtype != "uint8", f"{format} needs no such step"
    unit = image.to(torch.float32).sub(format.low).div_(format.high - format.low)
    return unit.clamp_(0.0, 1.0) if format.clip else unit


def to_unit_range(tensor: Tensor) -> Tensor:
    """Float in [-1, 1] → the same dtype in [0, 1]. Differentiable; nothing is clamped."""
    return (tensor + 1.0) / 2.0


# --------------------------------------------------------------------------------------------------------- showing


def tensor_to_pil(image: Tensor) -> Image.Image:
    """uint8 `(3, H, W)` on the CPU → a PIL image."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


GRID_PADDING, TITLE_HEIGHT = 2, 18  # pixels between the images of a grid, and above its first row
GRID_TITLES = ("source", "generated", "target")


def save_grid(
    rows: Sequence[tuple[Tensor, ...]],
    path: str | Path,
    formats: Sequence[PixelFormat] | None = None,
    titles: Sequence[str] = GRID_TITLES,
) -> None:
    """Write rows of images as one picture, titles above its columns, with `GRID_PADDING` pixels of white between them.

    Args:
        rows: as many `(C, H, W)` tensors in [-1, 1] in each row, all of one height and width. Three channels show as
            they are, one or two as gray (the first), more as their first three, labels in colours of their classes.
        path: the file, its suffix the format. Written aside, then renamed: a reader never sees half a file.
        formats: of the columns; None: no labels among them.
        titles: of the columns, as far as they have some.
    """
    from torchvision.utils import make_grid  # a second to import, and only training draws grids

    assert rows, "save_grid needs at least one row"
    columns = formats or [RGB] * len(rows[0])
    images = torch.stack([displayed(image, column) for row in rows for image, column in zip(row, columns, strict=True)])
    picture = tensor_to_pil(make_grid(images, nrow=len(rows[0]), padding=GRID_PADDING, pad_value=255))
    titled = Image.new("RGB", (picture.width, picture.height + TITLE_HEIGHT), "white")
    titled.paste(picture, (0, TITLE_HEIGHT))
    drawing, width = ImageDraw.Draw(titled), images.shape[-1]
    fonts = [ImageFont.load_default(size) for size in range(12, 5, -1)]  # the largest that fits
    font = next((font for font in fonts if max(map(font.getlength, titles)) <= width), fonts[-1])
    for column, title in enumerate(titles[: len(rows[0])]):
        middle = GRID_PADDING + column * (width + GRID_PADDING) + width / 2
        drawing.text((middle, TITLE_HEIGHT / 2), title, "#444444", font, anchor="mm")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as partial:
        titled.save(partial, format=Image.registered_extensions()[path.suffix.lower()])


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
