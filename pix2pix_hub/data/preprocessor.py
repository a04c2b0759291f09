"""`preprocessor_config.json`: what an export writes, and what is read, checked, since it may come from anybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pix2pix_hub.image.format import PREPROCESSOR_NAME, PixelFormat, whole_number
from pix2pix_hub.util import UserError, read_object


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
            height, width = (whole_number(size, 1, 2**16) for size in content["image_size"])
            return cls(
                PixelFormat.from_dict(content["source"]),
                PixelFormat.from_dict(content["target"]),
                (height, width),
                str(content["resize"]),
                whole_number(content["size_multiple"], 1, 2**12),
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
