"""Images between files, bytes and tensors: the only module that converts value ranges.

Stored images are uint8 `(C, H, W)` in [0, 255]; networks see float32 in [-1, 1]; metrics see [0, 1].
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from pix2pix_hub.errors import UserError
from pix2pix_hub.files import write_aside

if TYPE_CHECKING:
    from collections.abc import Sequence

EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_TRANSPARENT_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


def to_model_range(image: Tensor) -> Tensor:
    """uint8 of any shape in [0, 255] → float32 of that shape in [-1, 1]."""
    assert image.dtype == torch.uint8, f"uint8 in [0, 255] expected, not {image.dtype}"
    return image.to(torch.float32).div_(127.5).sub_(1.0)


def from_model_range(tensor: Tensor) -> Tensor:
    """Float of any shape in [-1, 1] → uint8 in [0, 255]: clamped, then rounded. Undoes `to_model_range` exactly."""
    return tensor.detach().to(torch.float32).clamp(-1.0, 1.0).add(1.0).mul_(127.5).round_().to(torch.uint8)


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
        rgb = _over_white(ImageOps.exif_transpose(image))
    except Exception as error:  # damaged EXIF blocks and palettes raise almost anything
        raise UserError(f"{name} could not be converted to RGB ({error}). Save it again as PNG.") from error
    # bytearray: the tensor needs memory that it may write to
    flat = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    return flat.view(rgb.height, rgb.width, 3).permute(2, 0, 1).contiguous()


def _over_white(image: Image.Image) -> Image.Image:
    """Any 8-bit mode → RGB; where the image is transparent, white shows."""
    if image.mode not in _TRANSPARENT_MODES and "transparency" not in image.info:
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


def decode_image(path_or_bytes: str | Path | bytes, name: str) -> Image.Image:
    """A file or its bytes → a PIL image with every pixel decoded, in the file's own mode and orientation.

    Raises:
        UserError: missing, empty, not an image, truncated or larger than Pillow's `MAX_IMAGE_PIXELS`; the text
            starts with `name`.
    """
    data = path_or_bytes if isinstance(path_or_bytes, bytes) else _read_file(Path(path_or_bytes), name)
    if not data:
        raise UserError(f"{name} is empty (0 bytes); expected an image.")
    try:
        image = Image.open(io.BytesIO(data))
        _refuse_bomb(image, name)
        image.load()
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image that Pillow can read ({len(data)} bytes).") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(_bomb_text(name)) from error
    except Exception as error:  # damaged files raise OSError, SyntaxError, struct.error, ValueError, …
        raise UserError(f"{name} is damaged or truncated ({error}).") from error
    return image


def _read_file(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{name} could not be read ({error.strerror or error}).") from error


def _refuse_bomb(image: Image.Image, name: str) -> None:
    """Pillow itself only warns up to twice its limit; a warning filter would not be safe between threads."""
    if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise UserError(_bomb_text(name))


def _bomb_text(name: str) -> str:
    return f"{name} unpacks to more than {Image.MAX_IMAGE_PIXELS} pixels (a decompression bomb?); cut it into tiles."


def save_grid(rows: Sequence[tuple[Tensor, ...]], path: str | Path) -> None:
    """Write rows of images (source | generated | target) as one picture, with 2 pixels of white between them.

    Args:
        rows: as many `(C, H, W)` tensors in [-1, 1] in each row, all of one height and width. Three channels show as
            they are, one or two as gray (the first), more as their first three.
        path: the file, its suffix the format. Written aside, then renamed: a reader never sees half a file.
    """
    from torchvision.utils import make_grid  # a second to import, and only training draws grids

    assert rows, "save_grid needs at least one row"
    images = torch.stack([_displayed(image) for row in rows for image in row])
    picture = make_grid(images, nrow=len(rows[0]), padding=2, pad_value=255)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as partial:
        tensor_to_pil(picture).save(partial, format=Image.registered_extensions()[path.suffix.lower()])


def _displayed(image: Tensor) -> Tensor:
    """`(C, H, W)` in [-1, 1] → uint8 `(3, H, W)` on the CPU."""
    shown = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    return from_model_range(shown).cpu()
