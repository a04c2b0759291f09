"""What is written reads back the same, at every depth and number of channels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms
from tiny_exports import noise

from pix2pix_hub.image.read import Decoded, from_memory, read_image
from pix2pix_hub.image.write import encode, read_metadata, suffix_for

KINDS = {"gray": (1, 2), "rgb": (3,), "rgba": (4,), "channels": (2, 4, 5, 13)}


@settings(max_examples=60)
@given(st.data())
def test_arrays_round_trip(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    channels = data.draw(st.sampled_from(KINDS[kind]))
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "float32"]))
    height, width = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    image = Decoded(noise((height, width, channels), dtype, height * 21 + width), kind)
    suffix = suffix_for(image, data.draw(st.sampled_from([".png", ".tif", ".npy", ".bmp"])))
    again = read_image(encode(image, "x", suffix), "x")
    assert again.values.dtype == image.values.dtype and np.array_equal(again.values, image.values)
    if suffix == ".png":
        assert again.kind == kind


@pytest.mark.parametrize("channels", [1, 3])
def test_deep_png_is_what_another_reader_expects(channels: int) -> None:
    """Pillow sees the upper byte of colours, and 16-bit gray whole."""
    image = Decoded(noise((7, 5, channels), "uint16"), "gray" if channels == 1 else "rgb")
    with Image.open(io.BytesIO(encode(image, "x", ".png"))) as seen:
        expected = image.values[..., 0] if channels == 1 else image.values >> 8
        assert np.array_equal(np.asarray(seen), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp"])
def test_pictures_round_trip_where_the_kind_of_file_holds_them(mode: str, suffix: str) -> None:
    image = Image.fromarray(noise((8, 9, 4 if "A" in mode else 3), "uint8")).convert(mode)
    decoded = from_memory(image, "x")
    with Image.open(io.BytesIO(encode(decoded, "x", suffix_for(decoded, suffix)))) as again:
        assert again.mode == mode
        assert np.array_equal(np.asarray(again.convert("RGBA")), np.asarray(image.convert("RGBA")))


def test_the_suffix_gives_way_to_what_must_be_held() -> None:
    rgb, rgba, labels = (from_memory(Image.new(mode, (2, 2)), "x") for mode in ("RGB", "RGBA", "P"))
    deep, bands = Decoded(noise((2, 2, 3), "uint16"), "rgb"), Decoded(noise((2, 2, 5), "uint8"), "channels")
    floats = Decoded(noise((2, 2, 1), "float32"), "gray")
    assert suffix_for(rgb, ".JPG") == ".jpg"
    assert suffix_for(rgba, ".jpg") == suffix_for(labels, ".jpg") == suffix_for(deep, ".jpeg") == ".png"
    assert suffix_for(bands, ".png") == suffix_for(floats, ".png") == ".tif"
    assert suffix_for(bands, ".npy") == ".npy"


@pytest.mark.parametrize("hidden", [1, bytes([9, 255, 0, 100])])
def test_transparent_palettes_and_colours_keep_what_they_hide(hidden: int | bytes) -> None:
    image = Image.fromarray(noise((8, 9, 3), "uint8")).quantize(8)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", transparency=hidden)
    decoded = read_image(buffer.getvalue(), "x")
    again = read_image(encode(decoded, "x"), "x")
    assert decoded.palette is not None and again.palette is not None and np.array_equal(again.values, decoded.values)
    with Image.open(buffer) as expected:
        assert np.array_equal(np.asarray(again.convert("RGBA")), np.asarray(expected.convert("RGBA")))


def camera_file(path: Path) -> bytes:
    """A JPEG as cameras write it: orientation, copyright, exposure, place, and a colour profile."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Copyright] = "somebody"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 200
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] = 40
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (40, 20), (9, 99, 199)).save(path, exif=exif, icc_profile=profile)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_metadata_is_kept_but_for_what_is_no_longer_true(tmp_path: Path, suffix: str) -> None:
    data = camera_file(tmp_path / "photo.jpg")
    decoded = read_image(data, "x")
    metadata = read_metadata(data)
    with Image.open(io.BytesIO(encode(decoded, "x", suffix, metadata))) as again:
        again.load()
        exif = again.getexif()
        assert again.size == (20, 40)
        assert ExifTags.Base.Orientation not in exif or exif[ExifTags.Base.Orientation] == 1
        assert exif[ExifTags.Base.Copyright] == "somebody"
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] == 200
        assert ExifTags.Base.ExifImageWidth not in exif.get_ifd(ExifTags.IFD.Exif)
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        assert again.info["icc_profile"] == metadata.icc
    with Image.open(io.BytesIO(encode(decoded, "x", suffix))) as bare:  # where nothing was asked for
        assert ExifTags.Base.Copyright not in bare.getexif() and "icc_profile" not in bare.info


def test_deep_files_keep_metadata_too(tmp_path: Path) -> None:
    metadata = read_metadata(camera_file(tmp_path / "photo.jpg"))
    image = Decoded(noise((4, 4, 3), "uint16"), "rgb")
    png = encode(image, "x", ".png", metadata)
    assert read_metadata(png).icc == metadata.icc
    with Image.open(io.BytesIO(png)) as again:
        assert again.getexif()[ExifTags.Base.Copyright] == "somebody"
    tiff = encode(image, "x", ".tif", metadata)
    assert read_metadata(tiff).icc == metadata.icc


def test_a_profile_of_another_colour_space_is_left_out(tmp_path: Path) -> None:
    metadata = read_metadata(camera_file(tmp_path / "photo.jpg"))
    with Image.open(io.BytesIO(encode(from_memory(Image.new("L", (2, 2)), "x"), "x", ".png", metadata))) as again:
        assert "icc_profile" not in again.info


def test_how_a_tiff_was_stored_is_not_taken_for_its_metadata() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, noise((6, 5, 3), "uint8"), photometric="rgb", rowsperstrip=2, compression="zlib")
    decoded = read_image(buffer.getvalue(), "x")
    metadata = read_metadata(buffer.getvalue())
    with Image.open(io.BytesIO(encode(decoded, "x", ".tif", metadata))) as again:
        assert np.array_equal(np.asarray(again), decoded.values)
    with Image.open(io.BytesIO(encode(decoded, "x", ".png", metadata))) as again:
        assert ExifTags.Base.StripOffsets not in again.getexif()
