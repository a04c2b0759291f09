"""Pixels → image files of any depth and number of channels: what `pixels.py` reads, written.

8-bit gray, palette, RGB, RGBA      PNG, or the JPEG, WebP, BMP or TIFF that is wanted
16-bit gray, RGB, RGBA              PNG, or TIFF
floats, any number of channels      TIFF with the channels as bands
anything                            .npy, where that is wanted
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin

from pix2pix_hub.data.headers import TIFF_MAGIC, directories, open_image
from pix2pix_hub.data.pixels import Decoded, PixelArray
from pix2pix_hub.util import UserError

JPEG_QUALITY = 95
PILLOW_FORMATS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {  # suffix → Pillow's name, modes, options
    ".png": ("PNG", ("1", "L", "LA", "P", "RGB", "RGBA"), {}),
    ".jpg": ("JPEG", ("L", "RGB"), {"quality": JPEG_QUALITY, "subsampling": 0}),
    ".jpeg": ("JPEG", ("L", "RGB"), {"quality": JPEG_QUALITY, "subsampling": 0}),
    ".webp": ("WEBP", ("RGB", "RGBA"), {"lossless": True, "exact": True}),
    ".bmp": ("BMP", ("1", "L", "P", "RGB"), {}),
    ".tif": ("TIFF", ("1", "L", "LA", "P", "RGB", "RGBA"), {}),
    ".tiff": ("TIFF", ("1", "L", "LA", "P", "RGB", "RGBA"), {}),
}
PNG_COLOUR_TYPES = {("gray", 1): 0, ("rgb", 3): 2, ("gray", 2): 4, ("rgba", 4): 6}
ICC_TAG = 34675  # in TIFF
DESCRIPTIVE_TAGS = (  # what EXIF says of the scene; the rest of its first directory describes how the file is stored
    ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.XResolution,
    ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit, ExifTags.Base.Software, ExifTags.Base.DateTime,
    ExifTags.Base.Artist, ExifTags.Base.Copyright,
)  # fmt: skip
SIZE_TAGS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)  # wrong once an image was set upright


@dataclass(frozen=True)
class Metadata:
    """What a file says of its image beside the pixels."""

    exif: bytes = b""  # without orientation: pixels are upright
    icc: bytes = b""  # the colour profile


def suffix_for(image: Decoded, wanted: str = ".png") -> str:
    """`wanted` where that kind of file holds the image without changing its depth or channels; else .png, else .tif."""
    wanted = wanted.lower()
    if wanted == ".npy" or _holds(wanted, image):
        return wanted
    return ".png" if _holds(".png", image) else ".tif"


def _holds(suffix: str, image: Decoded) -> bool:
    if isinstance(image, Image.Image):
        return suffix in PILLOW_FORMATS and (suffix == ".png" or image.mode in PILLOW_FORMATS[suffix][1])
    if suffix in (".tif", ".tiff"):
        return True
    return suffix == ".png" and image.values.dtype == np.uint16 and _png_key(image) in PNG_COLOUR_TYPES


def encode(image: Decoded, name: str, suffix: str | None = None, metadata: Metadata | None = None) -> bytes:
    """The content of a file with that suffix, by default `suffix_for`'s. Lossless, but for JPEG.

    A PIL image of a mode that PNG lacks (CMYK, …) becomes RGB there.

    Raises:
        UserError: Pillow cannot write it; the text starts with `name`.
    """
    suffix, kept = suffix or suffix_for(image), metadata or Metadata()
    if suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(image) if isinstance(image, Image.Image) else _squeezed(image.values))
        return buffer.getvalue()
    kept = Metadata(kept.exif, kept.icc if _fits(kept.icc, image) else b"")
    if isinstance(image, Image.Image):
        return _through_pillow(image, name, suffix, kept)
    return _deep_png(image, kept) if suffix == ".png" else _tiff(image, kept)


def _through_pillow(image: Image.Image, name: str, suffix: str, metadata: Metadata) -> bytes:
    kind, modes, options = PILLOW_FORMATS[suffix]
    buffer = io.BytesIO()
    try:
        image = image if image.mode in modes else image.convert("RGB")
        # a PIL image brings its source's metadata along; only what was asked for is written
        image.save(buffer, format=kind, exif=metadata.exif, icc_profile=metadata.icc or None, **options)
    except OSError as error:
        raise UserError(f"{name} cannot be written as {kind} ({error}).") from error
    return buffer.getvalue()


def _tiff(image: PixelArray, metadata: Metadata) -> bytes:
    import tifffile

    buffer = io.BytesIO()
    photometric = "rgb" if image.kind in ("rgb", "rgba") else "minisblack"
    tifffile.imwrite(
        buffer,
        _squeezed(image.values),
        photometric=photometric,
        planarconfig="contig",
        iccprofile=metadata.icc or None,
        metadata=None,  # tifffile's own description
    )
    return buffer.getvalue()


def _deep_png(image: PixelArray, metadata: Metadata) -> bytes:
    """16 bits a channel, which Pillow writes for gray only. Rows are stored as differences to the row above."""
    height, width, channels = image.values.shape
    rows = np.ascontiguousarray(image.values, ">u2").view(np.uint8).reshape(height, width * channels * 2)
    filtered = np.full((height, 1 + rows.shape[1]), 2, np.uint8)  # each row begins with its filter, 2 is "up"
    filtered[:, 1:] = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    buffer = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    buffer.seek(0, io.SEEK_END)
    colour_type = PNG_COLOUR_TYPES[_png_key(image)]
    PngImagePlugin.putchunk(buffer, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    if metadata.icc:
        PngImagePlugin.putchunk(buffer, b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc))
    if metadata.exif:
        PngImagePlugin.putchunk(buffer, b"eXIf", metadata.exif.removeprefix(b"Exif\0\0"))
    PngImagePlugin.putchunk(buffer, b"IDAT", zlib.compress(filtered.tobytes(), 6))
    PngImagePlugin.putchunk(buffer, b"IEND", b"")
    return buffer.getvalue()


def _png_key(image: PixelArray) -> tuple[str, int]:
    return image.kind, image.values.shape[2]


def _squeezed(values: NDArray[Any]) -> NDArray[Any]:
    return values[..., 0] if values.shape[-1] == 1 else values


# ------------------------------------------------------------------------------------------------------- metadata


def read_metadata(data: bytes, decoded: Decoded) -> Metadata:
    """EXIF and the colour profile of a file that `read_image` has decoded; nothing where there is none."""
    if isinstance(decoded, Image.Image):
        return _of_pillow(decoded)
    try:
        return _of_pillow(open_image(data, "the image"))
    except UserError:  # TIFF of kinds that Pillow does not open, .npy
        tags = directories(data, "the image")[0] if data.startswith(TIFF_MAGIC) else {}
        return Metadata(icc=tags[ICC_TAG].tobytes() if ICC_TAG in tags else b"")


def _of_pillow(image: Image.Image) -> Metadata:
    try:
        return Metadata(_descriptive(image.getexif()), image.info.get("icc_profile") or b"")
    except Exception:  # damaged EXIF raises almost anything; the pixels are what matters
        return Metadata(icc=image.info.get("icc_profile") or b"")


def _descriptive(stored: Image.Exif) -> bytes:
    kept = Image.Exif()
    kept.update({tag: stored[tag] for tag in DESCRIPTIVE_TAGS if tag in stored})
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        entries = {tag: value for tag, value in stored.get_ifd(directory).items() if tag not in SIZE_TAGS}
        if entries:
            kept.get_ifd(directory).update(entries)
    return kept.tobytes() if len(kept) or kept._ifds else b""


def _fits(profile: bytes, image: Decoded) -> bool:
    """Whether a colour profile is of the image's colour space; it would be wrong on any other."""
    gray = image.mode in ("1", "L", "LA") if isinstance(image, Image.Image) else image.kind == "gray"
    colours = isinstance(image, Image.Image) or image.kind in ("rgb", "rgba")
    return profile[16:20] == (b"GRAY" if gray else b"RGB " if colours else None)
