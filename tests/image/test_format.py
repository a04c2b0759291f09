"""Value ranges and formats: what is stored becomes what networks see, and comes back; and the samples picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_exports import noise

from pix2pix_hub.data.decode import settle_format
from pix2pix_hub.image.format import (
    RGB,
    TITLE_HEIGHT,
    PixelFormat,
    from_model_range,
    save_grid,
    stored_as,
    to_model_range,
    to_tensor,
    to_unit_range,
)
from pix2pix_hub.image.read import Decoded, from_memory

ALL_BYTES = torch.arange(256, dtype=torch.uint8)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_every_stored_value_is_scaled_linearly_and_comes_back() -> None:
    scaled = to_model_range(ALL_BYTES)
    assert scaled.dtype == torch.float32 and (scaled[0], scaled[-1]) == (-1, 1)
    np.testing.assert_allclose(scaled.numpy(), np.arange(256) / 127.5 - 1, atol=1e-6)
    assert torch.equal(from_model_range(scaled), ALL_BYTES)
    deep = PixelFormat("gray", 1, "uint16", 0.0, 65535.0)
    scaled = to_model_range(torch.arange(65536, dtype=torch.float32), deep)
    assert (scaled.min(), scaled.max()) == (-1, 1) and scaled.dtype == torch.float32
    back = from_model_range(scaled, deep)
    assert back.dtype == torch.uint16
    np.testing.assert_array_equal(back.numpy(), np.arange(65536))
    assert from_model_range(torch.tensor([-2.0, 2.0]), deep).to(torch.int32).tolist() == [0, 65535]
    with pytest.raises(AssertionError, match="uint8"):
        to_model_range(torch.zeros(3))  # it was converted before


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


def test_pixels_land_where_numpy_has_them_also_read_only() -> None:
    pixels = noise((8, 12, 3))
    pixels.flags.writeable = False
    decoded = from_memory(pixels, "x")
    np.testing.assert_array_equal(to_tensor(decoded, RGB, "x").numpy(), pixels.transpose(2, 0, 1))


def test_floats_are_scaled_by_what_was_found() -> None:
    for low, high, expected in ((0.0, 0.4, (0, 1)), (-0.2, 0.4, (-1, 1)), (-3.0, 5.0, (-3, 5)), (7.0, 7.0, (7, 8))):
        decoded = from_memory(np.array([[low, high]], np.float32), "x")
        chosen = settle_format("source", [stored_as(decoded, False)], "auto")
        assert (chosen.low, chosen.high) == expected
        tensor = to_tensor(decoded, chosen, "x")
        scaled = to_model_range(tensor, chosen)
        assert scaled.min() >= -1 and scaled.max() <= 1
        np.testing.assert_allclose(from_model_range(scaled, chosen).numpy(), tensor.numpy(), atol=1e-6)


@settings(max_examples=50)
@given(st.sampled_from(["gray", "rgb", "channels"]), st.sampled_from(["uint8", "uint16", "float32"]), st.integers(0, 9))
def test_formats_survive_json_and_pixels_survive_formats(mode: str, dtype: str, seed: int) -> None:
    channels = {"gray": 1, "rgb": 3}.get(mode, 2 + seed)
    content = noise((6, 10, channels), dtype, seed)
    decoded = from_memory(content, "x")
    chosen = settle_format("target", [stored_as(decoded, False)], "auto")
    assert PixelFormat.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen
    tensor = to_tensor(decoded, chosen, "x")
    back = from_model_range(to_model_range(tensor, chosen), chosen)
    np.testing.assert_allclose(back.permute(1, 2, 0).numpy(), content, atol=0 if dtype != "float32" else 1e-6)


def test_grid_shows_rows_in_order_with_two_pixels_between(tmp_path: Path) -> None:
    colours = [[RED, GREEN, BLUE], [BLUE, RED, GREEN]]
    rows = [
        tuple(to_model_range(torch.tensor(c, dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 6)) for c in row)
        for row in colours
    ]
    save_grid(rows, tmp_path / "new folder" / "samples.png")
    picture = np.asarray(Image.open(tmp_path / "new folder" / "samples.png"))
    assert picture.shape == (TITLE_HEIGHT + 2 * (8 + 2) + 2, 3 * (6 + 2) + 2, 3)
    picture = picture[TITLE_HEIGHT:]
    for r, row in enumerate(colours):
        for c, colour in enumerate(row):
            top, left = 2 + r * 10, 2 + c * 8
            assert (picture[top : top + 8, left : left + 6] == colour).all()
    assert (picture[:2] == 255).all() and (picture[10:12] == 255).all() and (picture[:, 8:10] == 255).all()


@pytest.mark.parametrize("size", [32, 256])
def test_columns_of_a_grid_have_titles_of_their_own(tmp_path: Path, size: int) -> None:
    """Dark on white, in the middle above each column, and nothing beside it."""
    save_grid([(torch.zeros(3, size, size),) * 3], tmp_path / "samples.png")
    titles = np.asarray(Image.open(tmp_path / "samples.png").convert("L"))[:TITLE_HEIGHT]
    columns = [titles[:, 2 + k * (size + 2) : 2 + k * (size + 2) + size] for k in range(3)]
    for column in columns:
        (inked,) = np.nonzero((column < 160).any(axis=0))
        assert abs((inked[0] + inked[-1]) / 2 - size / 2) < 3 and inked[0] >= 0 and len(inked) > 10
    assert not np.array_equal(columns[0], columns[1]) and not np.array_equal(columns[1], columns[2])
    assert (titles[:2] == 255).all() and (titles[-1] == 255).all()


def test_grid_shows_other_channel_counts(tmp_path: Path) -> None:
    channel = torch.full((1, 4, 4), -1.0)
    one, two = channel, torch.cat([channel, channel + 2])
    thirteen = torch.cat([channel + 2, channel, channel, *[channel + 1] * 10])
    save_grid([(one, two, thirteen)], tmp_path / "samples.png")
    picture = np.asarray(Image.open(tmp_path / "samples.png"))[TITLE_HEIGHT:]
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


def test_a_chosen_range_is_clipped_and_comes_back_as_stored() -> None:
    """Against the formula; what lies inside comes back exactly, what lies beyond as the nearest end."""
    chosen = PixelFormat("gray", 1, "uint16", 200.0, 10400.0, clip=True)
    values = np.arange(0, 65536, 7, dtype=np.uint16).reshape(1, 1, -1)
    seen = to_model_range(torch.from_numpy(values.astype(np.float32)), chosen)
    wanted = np.clip((values - 200.0) / 10200.0, 0, 1) * 2 - 1
    np.testing.assert_allclose(seen.numpy(), wanted, atol=1e-6)
    np.testing.assert_array_equal(from_model_range(seen, chosen).numpy(), values.clip(200, 10400))
    floats = PixelFormat("gray", 1, "float32", -2.0, 6.0, clip=True)
    seen = to_model_range(torch.tensor([[[-9.0, -2.0, 2.0, 6.0, 50.0]]]), floats)
    assert seen.flatten().tolist() == [-1.0, -1.0, 0.0, 1.0, 1.0]
    assert from_model_range(seen, floats).flatten().tolist() == [-2.0, -2.0, 2.0, 6.0, 6.0]
    assert PixelFormat.from_dict(chosen.to_dict()) == chosen and "clip" not in RGB.to_dict()
    assert chosen.describe() == "16-bit gray (200 … 10400)"


def test_transparency_has_the_whole_range_whatever_was_chosen() -> None:
    """Alpha is no reflectance: half of 65535 is half transparent."""
    chosen = PixelFormat("gray", 1, "uint16", 0.0, 10000.0, clip=True)
    pixels = np.array([[[5000, 65535], [5000, 0]]], np.uint16)
    assert to_tensor(Decoded(pixels, "gray"), chosen, "x").flatten().tolist() == [5000.0, 10000.0]
