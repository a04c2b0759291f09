"""Pixels → image files of any depth and number of channels: what `read.py` reads, written.

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
from PIL import ExifTags, Image, PngImagePlugin

from pix2pix_hub.image.read import PNG_MAGIC, Decoded, open_image
from pix2pix_hub.image.tiff import TIFF_MAGIC, directories
from pix2pix_hub.util import UserError

JPEG_QUALITY = 95
PILLOW_FORMATS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {  # suffix → Pillow's name, modes, options
    ".png": ("PNG", ("L", "LA", "P", "RGB", "RGBA"), {}),
    ".jpg": ("JPEG", ("L", "RGB"), {"quality": JPEG_QUALITY, "subsampling": 0}),
    ".webp": ("WEBP", ("RGB", "RGBA"), {"lossless": True, "exact": True}),
    ".bmp": ("BMP", ("L", "P", "RGB"), {}),
    ".tif": ("TIFF", ("L", "LA", "P", "RGB", "RGBA"), {}),
}
PILLOW_FORMATS |= {".jpeg": PILLOW_FORMATS[".jpg"], ".tiff": PILLOW_FORMATS[".tif"]}
PNG_COLOUR_TYPES = {("gray", 1): 0, ("rgb", 3): 2, ("gray", 2): 4, ("rgba", 4): 6}  # of kind and channels
ICC_TAG = 34675  # in TIFF
DESCRIPTIVE_TAGS = (  # what EXIF says of the scene; the rest of its first directory describes how the file is stored
    ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.XResolution,
    ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit, ExifTags.Base.Software, ExifTags.Base.DateTime,
    ExifTags.Base.Artist, ExifTags.Base.Copyright,
)  # fmt: skip
SIZE_TAGS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)  # wrong once an image was set upright


@dataclass(frozen=True)
class Metadata:
    """Information beside the pixels of a file."""

    exif: bytes = b""  # without orientation: pixels are upright
    icc: bytes = b""  # the colour profile


def suffix_for(image: Decoded, wanted: str = ".png") -> str:
    """`wanted` where that kind of file holds the image without changing its depth or channels; else .png, else .tif."""
    picture = image.picture() if image.values.dtype == np.uint8 else None
    for suffix in (wanted.lower(), ".png"):
        if isinstance(picture, Image.Image):
            held = suffix in PILLOW_FORMATS and picture.mode in PILLOW_FORMATS[suffix][1]
        else:
            deep_png = image.values.dtype == np.uint16 and (image.kind, image.values.shape[2]) in PNG_COLOUR_TYPES
            held = suffix in (".tif", ".tiff") or (suffix == ".png" and deep_png)
        if held or suffix == ".npy":
            return suffix
    return ".tif"


def encode(image: Decoded, name: str, suffix: str | None = None, metadata: Metadata | None = None) -> bytes:
    """The content of a file with that suffix, by default `suffix_for`'s. Lossless, but for JPEG.

    Raises:
        UserError: Pillow cannot write it; the text starts with `name`.
    """
    suffix, kept = suffix or suffix_for(image), metadata or Metadata()
    values = image.values[..., 0] if image.values.shape[2] == 1 else image.values
    icc = kept.icc if kept.icc[16:20] == {"gray": b"GRAY", "rgb": b"RGB ", "rgba": b"RGB "}.get(image.kind) else b""
    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, values)
    elif image.values.dtype == np.uint8 and isinstance(picture := image.picture(), Image.Image):
        kind, modes, options = PILLOW_FORMATS[suffix]
        try:
            picture = picture if picture.mode in modes else picture.convert("RGB")
            picture.save(buffer, format=kind, exif=kept.exif, icc_profile=icc or None, **options)
        except OSError as error:
            raise UserError(f"{name} cannot be written as {kind} ({error}).") from error
    elif suffix == ".png":
        return _deep_png(image, kept.exif, icc)
    else:
        import tifffile

        photometric = "rgb" if image.kind in ("rgb", "rgba") else "minisblack"
        options = dict(photometric=photometric, planarconfig="contig", iccprofile=icc or None)
        tifffile.imwrite(buffer, values, metadata=None, **options)  # None: no description of tifffile's own
    return buffer.getvalue()


def _deep_png(image: Decoded, exif: bytes, icc: bytes) -> bytes:
    """16 bits a channel, which Pillow writes for gray only. Rows are stored as differences to the row above."""
    height, width, channels = image.values.shape
    rows = np.ascontiguousarray(image.values, ">u2").view(np.uint8).reshape(height, width * channels * 2)
    filtered = np.full((height, 1 + rows.shape[1]), 2, np.uint8)  # each row begins with its filter, 2 is "up"
    filtered[:, 1:] = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    buffer = io.BytesIO(PNG_MAGIC)
    buffer.seek(0, io.SEEK_END)
    colour_type = PNG_COLOUR_TYPES[image.kind, channels]
    PngImagePlugin.putchunk(buffer, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    if icc:
        PngImagePlugin.putchunk(buffer, b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc))
    if exif:
        PngImagePlugin.putchunk(buffer, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    PngImagePlugin.putchunk(buffer, b"IDAT", zlib.compress(filtered.tobytes(), 6))
    PngImagePlugin.putchunk(buffer, b"IEND", b"")
    return buffer.getvalue()


def read_metadata(data: bytes) -> Metadata:
    """EXIF and the colour profile of a file that `read_image` has decoded; nothing where there is none."""
    try:
        image = open_image(data, "the image")
    except UserError:  # TIFF of kinds that Pillow does not open, .npy
        tags = directories(data, "the image")[0] if data.startswith(TIFF_MAGIC) else {}
        return Metadata(icc=tags[ICC_TAG].tobytes() if ICC_TAG in tags else b"")
    icc = image.info.get("icc_profile") or b""
    try:
        return Metadata(_descriptive(image.getexif()), icc)
    except Exception:  # damaged EXIF raises almost anything; the pixels are what matters
        return Metadata(icc=icc)


def _descriptive(stored: Image.Exif) -> bytes:
    kept = Image.Exif()
    kept.update({tag: stored[tag] for tag in DESCRIPTIVE_TAGS if tag in stored})
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        entries = {tag: value for tag, value in stored.get_ifd(directory).items() if tag not in SIZE_TAGS}
        if entries:
            kept.get_ifd(directory).update(entries)
    return kept.tobytes() if len(kept) or kept._ifds else b""
