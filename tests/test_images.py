"""Value ranges, pixel modes, damaged files and the samples picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pix2pix_hub.data.pixels import read_image
from pix2pix_hub.images import (
    from_model_range,
    pil_to_tensor,
    save_grid,
    tensor_to_pil,
    to_model_range,
    to_unit_range,
)
from pix2pix_hub.util import UserError

ALL_BYTES = torch.arange(256, dtype=torch.uint8)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def noise(height: int = 32, width: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def test_model_range_spans_minus_one_to_one_linearly() -> None:
    expected = np.arange(256) / 127.5 - 1
    result = to_model_range(ALL_BYTES)
    assert result.dtype == torch.float32
    assert (result[0], result[-1]) == (-1, 1)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)


def test_every_byte_survives_the_round_trip() -> None:
    assert torch.equal(from_model_range(to_model_range(ALL_BYTES)), ALL_BYTES)


def test_to_model_range_refuses_what_was_converted_before() -> None:
    with pytest.raises(AssertionError, match="uint8"):
        to_model_range(torch.zeros(3))


def test_from_model_range_clamps_and_rounds() -> None:
    values = torch.tensor([-3.0, -1.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 1.0, 7.0])
    assert from_model_range(values).tolist() == [0, 0, 0, 1, 255, 255]
    assert from_model_range(torch.tensor([1.0], dtype=torch.bfloat16)).tolist() == [255]


def test_unit_range_is_linear_and_differentiable() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    result = to_unit_range(x)
    assert result.tolist() == [0, 0.5, 1]
    result.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0.5] * 3


def palette_image(transparent: bool) -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    if transparent:
        image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (1, 1), 1), [WHITE]),
        (Image.new("L", (1, 1), 77), [(77, 77, 77)]),
        (Image.new("RGB", (1, 1), (1, 2, 3)), [(1, 2, 3)]),
        (Image.new("RGBA", (1, 1), (*BLUE, 255)), [BLUE]),
        (Image.new("RGBA", (1, 1), (*BLUE, 0)), [WHITE]),
        (Image.new("RGBA", (1, 1), (0, 0, 0, 51)), [(204, 204, 204)]),  # 255·(1 − 51/255)
        (Image.new("LA", (1, 1), (0, 51)), [(204, 204, 204)]),
        (palette_image(transparent=False), [RED, GREEN]),
        (palette_image(transparent=True), [RED, WHITE]),
        (Image.new("CMYK", (1, 1), (0, 255, 255, 0)), [RED]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_eight_bit_mode_becomes_rgb(image: Image.Image, expected: list[tuple[int, int, int]]) -> None:
    tensor = pil_to_tensor(image)
    assert tensor.dtype == torch.uint8 and tensor.shape == (3, image.height, image.width)
    assert [tuple(pixel) for pixel in tensor.flatten(1).T.tolist()] == expected


def test_pixels_land_where_numpy_has_them() -> None:
    image = noise()
    np.testing.assert_array_equal(pil_to_tensor(image).numpy(), np.asarray(image).transpose(2, 0, 1))


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn clockwise to show
    stored = encoded(noise(8, 16), "PNG", exif=exif)
    tensor = pil_to_tensor(read_image(stored, "photo.png"))
    np.testing.assert_array_equal(tensor.numpy(), np.rot90(np.asarray(noise(8, 16)), k=-1).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deeper_modes_are_refused_rather_than_shown_black(mode: str) -> None:
    with pytest.raises(UserError, match=f"depth.png has pixels of mode '{mode}'.*8 bits.*Save it as 8-bit"):
        pil_to_tensor(Image.new(mode, (4, 4)), "depth.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_tensor_to_pil_and_back(channels: int) -> None:
    tensor = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    image = tensor_to_pil(tensor)
    assert (image.size, image.mode) == ((7, 5), {1: "L", 3: "RGB"}[channels])
    assert torch.equal(pil_to_tensor(image)[:channels], tensor)


def test_tensor_to_pil_names_the_channel_count_it_cannot_show() -> None:
    with pytest.raises(UserError, match="13 channels"):
        tensor_to_pil(torch.zeros(13, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize("kind", ["bytes", "str", "path"])
def test_read_image_takes_bytes_and_paths(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise().save(path)
    given_as = {"bytes": path.read_bytes(), "str": str(path), "path": path}[kind]
    np.testing.assert_array_equal(np.asarray(read_image(given_as, "a.png")), np.asarray(noise()))


BAD_FILES = {
    "empty": (b"", r"x\.png is empty \(0 bytes\)"),
    "text": (b"no picture", r"x\.png is not a picture that is read here"),
    "half a PNG": (encoded(noise(), "PNG")[:2000], r"x\.png is damaged or truncated"),
    "half a JPEG": (encoded(noise(), "JPEG")[:1500], r"x\.png is damaged or truncated"),
    "half a BMP": (encoded(noise(), "BMP")[:1500], r"x\.png is damaged or truncated"),
    "only a PNG's head": (encoded(noise(), "PNG")[:20], r"x\.png is"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "stored.bin"
    path.write_bytes(content)
    for given_as in (content, path):
        with pytest.raises(UserError, match=f"^{message}"):
            read_image(given_as, "x.png")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^gone.png could not be read .No such file"):
        read_image(tmp_path / "gone.png", "gone.png")
    with pytest.raises(UserError, match="^folder could not be read .Is a directory"):
        read_image(tmp_path, "folder")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [1000, 500], ids=["Pillow only warns", "Pillow refuses"])
def test_decompression_bombs_are_refused(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match=f"^big.png has too many pixels; at most {limit / 1e6:g} megapixels"):
        read_image(encoded(noise(), "PNG"), "big.png")


FORMATS = {name: encoded(noise(24, 24), name) for name in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")}


@settings(max_examples=150)
@given(st.sampled_from(sorted(FORMATS)), st.data())
def test_mutated_files_decode_or_are_named(format: str, data: st.DataObject) -> None:
    content = bytearray(FORMATS[format])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(len(content) // 2, len(content))) :]
    try:
        tensor = pil_to_tensor(read_image(bytes(content), "fuzzed"), "fuzzed")
    except UserError as error:
        assert str(error).startswith("fuzzed ")
    else:
        assert tensor.dtype == torch.uint8 and tensor.shape[0] == 3


def test_grid_shows_rows_in_order_with_two_pixels_between(tmp_path: Path) -> None:
    colours = [[RED, GREEN, BLUE], [BLUE, RED, GREEN]]
    rows = [
        tuple(to_model_range(torch.tensor(c, dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 6)) for c in row)
        for row in colours
    ]
    save_grid(rows, tmp_path / "new folder" / "samples.png")
    picture = np.asarray(Image.open(tmp_path / "new folder" / "samples.png"))
    assert picture.shape == (2 * (8 + 2) + 2, 3 * (6 + 2) + 2, 3)
    for r, row in enumerate(colours):
        for c, colour in enumerate(row):
            top, left = 2 + r * 10, 2 + c * 8
            assert (picture[top : top + 8, left : left + 6] == colour).all()
    assert (picture[:2] == 255).all() and (picture[10:12] == 255).all() and (picture[:, 8:10] == 255).all()


def test_grid_shows_other_channel_counts(tmp_path: Path) -> None:
    channel = torch.full((1, 4, 4), -1.0)
    one, two = channel, torch.cat([channel, channel + 2])
    thirteen = torch.cat([channel + 2, channel, channel, *[channel + 1] * 10])
    save_grid([(one, two, thirteen)], tmp_path / "samples.png")
    picture = np.asarray(Image.open(tmp_path / "samples.png"))
    assert [tuple(picture[3, x]) for x in (3, 9, 15)] == [(0, 0, 0), (0, 0, 0), RED]


def test_a_grid_that_fails_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "samples.png"
    save_grid([(torch.zeros(3, 4, 4),)], path)
    before = path.read_bytes()

    def full_disk(self: Image.Image, file: Path, format: str) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_grid([(torch.ones(3, 4, 4),)], path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
