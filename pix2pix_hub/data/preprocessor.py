"""`preprocessor_config.json`: what an export writes, and what is read, checked, since it may come from anybody."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pix2pix_hub.data.headers import MAX_CHANNELS
from pix2pix_hub.images import PREPROCESSOR_NAME, PixelFormat
from pix2pix_hub.util import UserError, read_object

PICTURE_MODES = {"gray": 1, "rgb": 3, "rgba": 4}
FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


@dataclass(frozen=True)
class Preprocessor:
    """How training read its images, and with that how a model wants its input."""

    source: PixelFormat
    target: PixelFormat
    image_size: tuple[int, int]  # height and width that it was trained at
    resize: str  # what training did to images of another size; inference keeps every image's own
    size_multiple: int  # heights and widths that the generator takes are multiples of this

    @classmethod
    def from_folder(cls, folder: Path) -> Preprocessor:
        """Read `preprocessor_config.json` of an export.

        Raises:
            UserError: the file is missing, or does not say what it should.
        """
        path = folder / PREPROCESSOR_NAME
        if not path.is_file():
            raise UserError(
                f"{folder} holds no {PREPROCESSOR_NAME}, which says how to read images: expected an export (a run's "
                "model/ or model_best/) or the Hub repository of one. A bare generator loads with "
                "UNetGenerator.from_pretrained."
            )
        content = read_object(path)
        try:
            height, width = (_whole(size, 1, 2**16) for size in content["image_size"])
            return cls(
                _pixel_format(content["source"]),
                _pixel_format(content["target"]),
                (height, width),
                str(content["resize"]),
                _whole(content["size_multiple"], 1, 2**12),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is not as an export has it ({repr(error)[:300]}): export the model again."
            ) from error


def preprocessor_config(
    image_size: tuple[int, int], resize: str, size_multiple: int, formats: Mapping[str, PixelFormat]
) -> dict[str, Any]:
    """How a stored image becomes the generator's input, and its output an image again."""
    return {
        "image_size": list(image_size),  # height, width it was trained at
        "resize": resize,
        "size_multiple": size_multiple,
        "resample": "bilinear, antialiased; labels nearest",
        "model_range": [-1.0, 1.0],
        **{side: formats[side].to_dict() for side in ("source", "target")},
    }


def _pixel_format(values: Mapping[str, Any]) -> PixelFormat:
    """One side of the file; its keys that are no fields of `PixelFormat` are for others. Raises `ValueError`."""
    known = {field.name for field in fields(PixelFormat)}
    found = PixelFormat.from_dict({name: value for name, value in values.items() if name in known})
    modes = {**PICTURE_MODES, "channels": found.channels, "labels": len(found.classes)}
    _whole(found.channels, 1, MAX_CHANNELS)
    if found.channels != modes.get(found.mode):
        raise ValueError(f"mode {found.mode!r} with {found.channels!r} channels")
    if found.dtype not in FULL_SCALE or not -math.inf < found.low < found.high < math.inf:
        raise ValueError(f"{found.dtype!r} from {found.low!r} to {found.high!r}")
    if len(found.colors) not in (0, len(found.classes)) or len(set(found.classes)) != len(found.classes):
        raise ValueError(f"{len(found.colors)} colors of {len(found.classes)} classes, or one class twice")
    _whole(len(found.palette), 0, MAX_CHANNELS)
    for value in (*found.classes, *(part for color in found.colors for part in color)):
        _whole(value, 0, 255)
    return found


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r}, where a whole number from {least} to {most} is expected")
    return value
