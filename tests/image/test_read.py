"""Every kind of pixels: the same known content in every kind of file, and files that are damaged."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hostile_images import chunk, deep_png, tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tiny_exports import noise

from pix2pix_hub.data.decode import settle_format
from pix2pix_hub.image.format import PixelFormat, from_model_range, stored_as, to_model_range, to_tensor
from pix2pix_hub.image.read import read_image
from pix2pix_hub.util import UserError

HEIGHT, WIDTH = 6, 10


def values(channels: int, dtype: str = "uint8") -> NDArray[Any]:
    """Known content `(H, W, C)`; floats lie in [0, 1]."""
    return noise((HEIGHT, WIDTH, channels), dtype, channels)


def pillow(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def picture(channels: int, format: str, **options: Any) -> bytes:
    content = values(channels)
    return pillow(Image.fromarray(content[:, :, 0] if channels == 1 else content), format, **options)


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def pages(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def decode(content: bytes, mode: str = "auto") -> tuple[torch.Tensor, PixelFormat]:
    """As a data set of this one image would be."""
    decoded = read_image(content, "x")
    chosen = settle_format("source", [stored_as(decoded, mode == "labels")], mode)
    return to_tensor(decoded, chosen, "x"), chosen


def sixteen(channels: int) -> NDArray[Any]:
    return values(channels, "uint16")


GRAY16, FLOATS = sixteen(1)[:, :, 0], values(1, "float32")[:, :, 0]
BANDS = {"photometric": "minisblack"}
# file → its bytes, content (H, W, C), what the format is called
KINDS: dict[str, tuple[bytes, NDArray[Any], str]] = {
    "gray PNG": (picture(1, "PNG"), values(1), "8-bit gray"),
    "gray BMP": (picture(1, "BMP"), values(1), "8-bit gray"),
    "RGB PNG": (picture(3, "PNG"), values(3), "8-bit RGB"),
    "RGB WebP": (picture(3, "WEBP", lossless=True), values(3), "8-bit RGB"),
    "RGB TIFF, LZW": (picture(3, "TIFF", compression="tiff_lzw"), values(3), "8-bit RGB"),
    "16-bit gray PNG": (deep_png(sixteen(1)), sixteen(1), "16-bit gray"),
    "16-bit gray PNG of Pillow": (pillow(Image.fromarray(GRAY16), "PNG"), sixteen(1), "16-bit gray"),
    "16-bit gray TIFF": (tiff(GRAY16), sixteen(1), "16-bit gray"),
    "16-bit gray TIFF, big-endian": (tiff(GRAY16, byteorder=">"), sixteen(1), "16-bit gray"),
    "16-bit RGB PNG": (deep_png(sixteen(3)), sixteen(3), "16-bit RGB"),
    "16-bit RGB TIFF": (tiff(sixteen(3), photometric="rgb"), sixteen(3), "16-bit RGB"),
    "float TIFF": (tiff(FLOATS), FLOATS[..., None], "float gray (0 … 1)"),
    "float TIFF, big-endian, zipped": (
        tiff(FLOATS, byteorder=">", compression="zlib"),
        FLOATS[..., None],
        "float gray (0 … 1)",
    ),
    "TIFF of 3 bands": (tiff(values(3), planarconfig="contig", **BANDS), values(3), "8-bit RGB"),
    "npy (H, W)": (npy(values(1)[:, :, 0]), values(1), "8-bit gray"),
    "npy (H, W, 3)": (npy(values(3)), values(3), "8-bit RGB"),
    "npy, Fortran order": (npy(np.asfortranarray(values(13))), values(13), "8-bit 13-channel"),
    "npy, big-endian": (npy(sixteen(2).astype(">u2")), sixteen(2), "16-bit 2-channel"),
    "npy of doubles": (npy(values(4, "float32").astype(float)), values(4, "float32"), "float 4-channel (0 … 1)"),
    "npy of booleans": (npy(values(1)[:, :, 0] > 99), (values(1) > 99) * np.uint8(255), "8-bit gray"),
    "TIFF of 13 pages": (tiff(pages(values(13)), **BANDS), values(13), "8-bit 13-channel"),
    "TIFF of 2 pages, zipped, 16 bits": (
        tiff(pages(sixteen(2)), compression="zlib", **BANDS),
        sixteen(2),
        "16-bit 2-channel",
    ),
    "TIFF of 13 interleaved bands": (tiff(values(13), planarconfig="contig", **BANDS), values(13), "8-bit 13-channel"),
    "TIFF of 5 separate bands": (
        tiff(pages(sixteen(5)), planarconfig="separate", **BANDS),
        sixteen(5),
        "16-bit 5-channel",
    ),
    "TIFF of RGB and near infrared": (
        tiff(values(4), photometric="rgb", extrasamples=("unspecified",)),
        values(4),
        "8-bit 4-channel",
    ),
}


@pytest.mark.parametrize(("file", "content", "called"), KINDS.values(), ids=KINDS.keys())
def test_the_same_content_in_every_kind_of_file(
    file: bytes, content: NDArray[Any], called: str, tmp_path: Path
) -> None:
    tensor, chosen = decode(file)
    assert chosen.describe() == called and chosen.channels == content.shape[2]
    assert tensor.dtype == (torch.uint8 if chosen.dtype == "uint8" else torch.float32) and tensor.is_contiguous()
    np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), content)
    (tmp_path / "misnamed.jpg").write_bytes(file)  # what a file is is told by its content
    assert read_image(str(tmp_path / "misnamed.jpg"), "x").size == (HEIGHT, WIDTH)


def filled(mode: str, *pixel: int) -> Image.Image:
    return Image.new(mode, (2, 1), pixel if len(pixel) > 1 else pixel[0])


def deep(*pixel: int) -> bytes:
    return deep_png(np.full((1, 2, len(pixel)), pixel, np.uint16))


CONVERSIONS: dict[str, tuple[bytes, str, list[int]]] = {
    "RGBA over white": (pillow(filled("RGBA", 0, 0, 0, 51), "PNG"), "auto", [204, 204, 204]),
    "RGBA kept": (pillow(filled("RGBA", 9, 8, 7, 51), "PNG"), "rgba", [9, 8, 7, 51]),
    "RGB made opaque": (pillow(filled("RGB", 9, 8, 7), "PNG"), "rgba", [9, 8, 7, 255]),
    "gray and alpha": (pillow(filled("LA", 0, 51), "PNG"), "auto", [204]),
    "gray as RGB": (pillow(filled("L", 77), "PNG"), "rgb", [77, 77, 77]),
    "RGB as gray": (pillow(filled("RGB", 255, 0, 0), "PNG"), "gray", [76]),  # 0.299 · 255
    "npy RGB as gray": (npy(np.full((1, 2, 3), [255, 0, 0], np.uint8)), "gray", [76]),
    "npy gray as RGBA": (npy(np.full((1, 2), 7, np.uint8)), "rgba", [7, 7, 7, 255]),
    "CMYK": (pillow(filled("CMYK", 0, 255, 255, 0), "TIFF"), "auto", [255, 0, 0]),
    "black and white": (pillow(filled("1", 1), "PNG"), "auto", [255]),
    "palette": (pillow(filled("RGB", 255, 0, 0).quantize(2), "PNG"), "auto", [255, 0, 0]),
    "transparent entry of a palette": (
        pillow(filled("RGB", 255, 0, 0).quantize(2), "PNG", transparency=b"\0\0"),
        "auto",
        [255, 255, 255],
    ),
    "16-bit RGBA over white": (deep(0, 0, 0, 13107), "auto", [52428] * 3),  # a fifth opaque
    "16-bit RGBA kept": (deep(1, 2, 3, 4), "rgba", [1, 2, 3, 4]),
    "16-bit gray and alpha": (deep(0, 13107), "auto", [52428]),
    "16-bit gray and alpha as RGBA": (deep(5, 9), "rgba", [5, 5, 5, 9]),
}


@pytest.mark.parametrize(("file", "mode", "pixel"), CONVERSIONS.values(), ids=CONVERSIONS.keys())
def test_modes_are_converted_by_rule(file: bytes, mode: str, pixel: list[int]) -> None:
    tensor, chosen = decode(file, mode)
    assert tensor.shape == (len(pixel), 1, 2) and chosen.channels == len(pixel)
    np.testing.assert_allclose(tensor[:, 0, 1].numpy(), pixel, atol=1e-2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_at_every_depth(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = pillow(Image.fromarray(values(3)), "PNG", exif=exif)
    deep = deep_png(values(3).astype(np.uint16))
    deep = deep[:33] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + deep[33:]  # after the header
    assert torch.equal(decode(shown)[0].float(), decode(deep)[0])
    assert read_image(deep, "x").size == ((HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT))


def palette_map() -> tuple[bytes, NDArray[Any]]:
    """A label map as a palette PNG, with classes 0, 2 and 5."""
    classes = np.random.default_rng(0).choice([0, 2, 5], (HEIGHT, WIDTH)).astype(np.uint8)
    image = Image.fromarray(classes)
    image.putpalette([10 * index for index in range(18)])  # class i: (30i, 30i + 10, 30i + 20)
    assert image.mode == "P"
    return pillow(image, "PNG"), classes


def test_palette_images_are_colours_or_classes() -> None:
    content, classes = palette_map()
    colours, _ = decode(content)
    np.testing.assert_array_equal(colours[1], 30 * classes + 10)
    labels, chosen = decode(content, "labels")
    np.testing.assert_array_equal(labels[0], classes)
    assert (chosen.classes, chosen.colors) == ((0, 2, 5), ((0, 10, 20), (60, 70, 80), (150, 160, 170)))
    one_hot = to_model_range(labels, chosen)
    assert one_hot.shape == (3, HEIGHT, WIDTH) and set(one_hot.unique().tolist()) == {-1, 1}
    for channel, value in enumerate((0, 2, 5)):
        np.testing.assert_array_equal(one_hot[channel] == 1, classes == value)
    assert torch.equal(from_model_range(one_hot, chosen), labels)
    assert torch.equal(from_model_range(one_hot[None] * 0.1, chosen)[0], labels)  # the largest, whatever its size
    assert PixelFormat.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen


@pytest.mark.parametrize("write", [npy, lambda a: npy(a.astype(np.int64)), lambda a: pillow(Image.fromarray(a), "PNG")])
def test_labels_may_be_plain_numbers(write: Callable[[NDArray[Any]], bytes]) -> None:
    classes = np.array([[0, 255, 7], [7, 7, 0]], np.uint8)
    labels, chosen = decode(write(classes), "labels")
    assert chosen.classes == (0, 7, 255) and chosen.describe() == "labels of 3 classes"
    np.testing.assert_array_equal(labels[0], classes)


@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [
        (picture(3, "PNG"), "labels", "--source-mode labels: the source images are rgb of 3 channels"),
        (npy(np.array([[0.5, 1.0]])), "labels", "expected integers 0 to 255"),
        (npy(np.array([[-1, 300]])), "labels", "values from -1.0 to 300.0"),
        (npy(values(13)), "rgb", "--source-mode rgb: the source images have 13 bands"),
    ],
)
def test_modes_that_do_not_go_with_the_pixels_name_the_flag(content: bytes, mode: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        decode(content, mode)


# ---------------------------------------------------------------------------------------------------- one format


def stored(content: bytes) -> Any:
    return stored_as(read_image(content, "x"), False)


def test_most_images_and_all_their_colours_make_the_format_of_a_side() -> None:
    gray, rgb, deep_gray = stored(picture(1, "PNG")), stored(picture(3, "PNG")), stored(deep_png(sixteen(1)))
    with_alpha = stored(pillow(filled("LA", 0, 0), "PNG"))
    assert settle_format("source", [gray, with_alpha, gray], "auto").mode == "gray"
    assert settle_format("source", [gray, gray, rgb], "auto").mode == "rgb"
    assert settle_format("source", [gray, deep_gray, deep_gray], "auto").dtype == "uint16"
    assert settle_format("source", [gray, gray, deep_gray], "auto").dtype == "uint8"
    with pytest.raises(UserError, match="^x is 16-bit gray, where 8-bit gray is expected"):
        to_tensor(read_image(deep_png(sixteen(1)), "x"), PixelFormat("gray", 1), "x")


# --------------------------------------------------------------------------------------------------- damaged files


def lzw_pages() -> bytes:
    page = Image.fromarray(values(1)[:, :, 0])
    return pillow(page, "TIFF", save_all=True, append_images=[page], compression="tiff_lzw")


def unequal_pages() -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for width in (WIDTH, WIDTH - 2):
            writer.write(np.zeros((HEIGHT, width), np.uint16))
    return buffer.getvalue()


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"x is empty \(0 bytes\)"),
    "text": (b"no picture", "x is not a picture that can be read"),
    "half a PNG": (picture(3, "PNG")[:100], "x is damaged or truncated"),
    "half a JPEG": (picture(3, "JPEG")[:-100], "x is damaged or truncated"),
    "half a BMP": (picture(3, "BMP")[:100], "x is damaged or truncated"),
    "only a PNG's head": (picture(3, "PNG")[:20], "x is"),
    "cut npy": (npy(values(3))[:-1], r"x is damaged or truncated \(179 of 180 bytes"),
    "npy of objects": (npy(np.array([[None]])), "x holds Python objects, which are never loaded"),
    "npy of words": (npy(np.array([["a"]])), "x holds <U1; expected uint8, uint16 or float"),
    "npy of one dimension": (npy(np.zeros(3)), r"x has shape 3; expected \(H, W\) or \(H, W, C\)"),
    "npy, channels first": (npy(np.zeros((3, 8, 512))), r"x has shape 3x8x512; expected \(H, W\)"),
    "empty npy": (npy(np.zeros((0, 8))), "x has no pixels"),
    "NaN": (npy(np.array([[np.nan]])), "x holds NaN, infinite or too large numbers"),
    "too large doubles": (npy(np.array([[1e300]])), "x holds NaN, infinite or too large numbers"),
    "a header that promises more": (
        npy(np.zeros((1, 1), np.uint8)).replace(b"(1, 1)", b"(9999999, 9999999)"),
        "x is",
    ),
    "cut 16-bit PNG": (deep_png(sixteen(3))[:-60], "x is damaged or truncated"),
    "cut TIFF": (tiff(pages(values(13)), **BANDS)[:600], "x is damaged or truncated"),
    "TIFF pages in a circle": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "x is damaged, or has more than 256 pages"),
    "unequal pages": (unequal_pages(), "x has pages of different sizes or kinds"),
}


@pytest.mark.parametrize(("file", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_files_say_what_is_wrong(file: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "stored.bin").write_bytes(file)
    for content in (file, tmp_path / "stored.bin"):
        with pytest.raises(UserError, match=f"^{expected}"):
            read_image(content, "x")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    for place, reason in ((tmp_path / "gone.png", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=f"^x could not be read .{reason}"):
            read_image(place, "x")


def test_a_codec_that_is_not_installed_is_named() -> None:
    if find_spec("imagecodecs"):
        assert decode(lzw_pages())[0].shape == (2, HEIGHT, WIDTH)
    else:
        with pytest.raises(UserError, match="^x is compressed in a way that needs `pip install imagecodecs`"):
            read_image(lzw_pages(), "x")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["RGB PNG", "16-bit RGB PNG", "16-bit RGB TIFF", "TIFF of 13 pages", "npy (H, W, 3)"])
def test_bombs_are_refused_in_every_kind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(UserError, match=r"^x has too many pixels; at most 5\.9e-05 megapixels"):
        read_image(KINDS[kind][0], "x")


WRITTEN = {kind: file for kind, (file, _, _) in KINDS.items()} | {
    "JPEG": picture(3, "JPEG"),
    "GIF": picture(1, "GIF"),
    "palette": palette_map()[0],
}


@settings(max_examples=600)
@given(st.sampled_from(sorted(WRITTEN)), st.data())
def test_mutated_files_decode_or_are_named(kind: str, data: st.DataObject) -> None:
    content = bytearray(WRITTEN[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(len(content) // 2, len(content))) :]
    try:
        tensor, chosen = decode(bytes(content))
    except UserError as error:
        assert str(error).startswith("x ")
    else:
        assert tensor.shape[0] == chosen.channels and torch.isfinite(tensor.float()).all()


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=200), st.sampled_from([b"", b"\x93NUMPY\x01\0", b"II*\0", b"\x89PNG\r\n\x1a\n"]))
def test_noise_is_named(content: bytes, magic: bytes) -> None:
    with pytest.raises(UserError, match="^x "):
        read_image(magic + content, "x")
