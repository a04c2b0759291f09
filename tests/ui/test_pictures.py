"""Drawings, palettes, heat maps and what an export shows of itself."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pix2pix_hub.image.format import TITLE_HEIGHT, PixelFormat
from pix2pix_hub.image.read import Decoded, from_memory, read_image
from pix2pix_hub.inference.pipeline import Pix2PixPipeline
from pix2pix_hub.synthetic import CMP_CLASSES
from pix2pix_hub.training.report import draw_curves
from pix2pix_hub.ui.handlers import (
    FAKE,
    REAL,
    as_stored,
    decode_drawing,
    encode_drawing,
    encoded,
    heat_map,
    nearest_paints,
    shown,
)
from pix2pix_hub.ui.models import SHIPPED, SHIPPED_DRAWING, ModelInfo, paints
from pix2pix_hub.util import UserError

BLUE, RED, GREEN = (0, 0, 255), (255, 0, 0), (0, 200, 0)


def test_smoothed_borders_become_one_of_their_two_sides_never_a_third() -> None:
    purple, gray = (128, 0, 128), (90, 90, 90)  # halfway between blue and red, and a class of its own; none
    for pixels, palette, wanted in (
        ([BLUE, BLUE, (100, 0, 155), (200, 0, 55), RED, RED], [BLUE, purple, RED], [0, 0, 0, 2, 2, 2]),
        ([(130, 3, 120)], [BLUE, purple, RED], [1]),
        ([RED, gray, gray, BLUE], [BLUE, RED], [1, 1, 0, 0]),  # and nothing from beyond the edge
        ([gray, gray, gray, BLUE], [BLUE, RED], [0, 0, 0, 0]),
    ):
        assert nearest_paints(np.array([pixels], np.uint8), palette).tolist() == [wanted]


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 9))
def test_exact_colours_stay(seed: int, height: int, width: int) -> None:
    palette = list(CMP_CLASSES.values())
    classes = np.random.default_rng(seed).integers(0, len(palette), (height, width))
    pixels = np.array(palette, np.uint8)[classes]
    assert (nearest_paints(pixels, palette) == classes).all()


def test_colours_of_classes_become_their_values() -> None:
    config = {"mode": "labels", "classes": [0, 7, 200], "colors": [BLUE, RED, GREEN], "channels": 3}
    side = PixelFormat.from_dict(config | {"palette": [{"color": list(RED), "name": "door", "share": 0.9}]})
    assert [paint.name for paint in paints(side)] == ["#0000ff", "door", "#00c800"]
    drawn = Image.fromarray(np.array([[BLUE, RED], [GREEN, GREEN]], np.uint8))
    stored = as_stored(drawn, side, (4, 2))
    assert stored.values.squeeze().tolist() == [[0, 0, 7, 7], [200, 200, 200, 200]]
    file = stored.picture()
    assert file.mode == "P" and np.asarray(file).tolist() == stored.values.squeeze().tolist()
    assert np.asarray(file.convert("RGB"))[:, ::2].tolist() == np.asarray(drawn).tolist()


def test_drawings_go_to_the_page_and_back() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))
    np.testing.assert_array_equal(np.asarray(decode_drawing(encode_drawing(picture))), np.asarray(picture))
    huge = encode_drawing(Image.new("L", (5000, 1)))
    for value, text in (
        ("data:image/jpeg;base64,AAAA", "expected a PNG data URL"),
        ("/etc/passwd", "expected a PNG data URL"),
        ("data:image/png;base64,!!", "damaged"),
        ("data:image/png;base64," + base64.b64encode(b"GIF89a").decode(), "damaged"),
        (encode_drawing(picture)[:80], "damaged"),
        (huge, "side of over 4096 pixels"),
    ):
        with pytest.raises(UserError, match=text):
            decode_drawing(value)


@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        (np.arange(12, dtype=np.uint8).reshape(2, 2, 3), ".png"),
        (np.arange(12, dtype=np.uint16).reshape(2, 2, 3) * 5000, ".png"),
        (np.arange(4, dtype=np.uint16).reshape(2, 2) * 20000, ".png"),
        (np.linspace(-1, 1, 20, dtype=np.float32).reshape(2, 2, 5), ".tif"),
    ],
)
def test_results_are_written_with_every_bit(values: np.ndarray, suffix: str) -> None:
    name, content = encoded(from_memory(values, "made"), "made")
    assert name == f"made{suffix}"
    np.testing.assert_array_equal(read_image(content, "made").values.squeeze(), values.squeeze())


def test_what_is_shown_is_neither_tiny_nor_huge() -> None:
    assert shown(Image.new("RGB", (128, 64))).size == (512, 256)
    assert shown(Image.new("L", (3000, 1500))).size == (1024, 512)
    labels = Image.fromarray(np.array([[BLUE, RED]], np.uint8))
    assert set(map(tuple, np.asarray(shown(labels, exact=True)).reshape(-1, 3))) == {BLUE, RED}
    deep = shown(Decoded(np.full((600, 600, 3), 65535, np.uint16), "rgb"))
    assert deep.getpixel((0, 0)) == (255, 255, 255)


def test_the_heat_map_is_blue_where_real_orange_where_made_and_clear_between() -> None:
    gray = Image.new("RGB", (3, 1), (100, 100, 100))
    left, middle, right = np.asarray(heat_map(gray, np.array([[1.0, 0.5, 0.0]], np.float32)))[0].astype(float)
    np.testing.assert_allclose(left, 0.4 * 100 + 0.6 * np.array(REAL), atol=1)
    np.testing.assert_allclose(middle, 100, atol=1)
    np.testing.assert_allclose(right, 0.4 * 100 + 0.6 * np.array(FAKE), atol=1)


def test_the_shipped_model_shows_itself() -> None:
    export = ModelInfo(SHIPPED, "demo")
    assert (export.height, export.width) == (256, 256) and len(export.examples) >= 4
    assert {paint.name: paint.color for paint in paints(export.source)}.items() <= CMP_CLASSES.items()
    for example in export.examples:
        colors = set(map(tuple, np.asarray(example.source).reshape(-1, 3)))
        assert colors <= {paint.color for paint in paints(export.source)}
        assert example.source.size == example.generated.size == example.target.size == (256, 256)
    for folder in (SHIPPED, SHIPPED_DRAWING):
        rows = len(ModelInfo(folder, "").examples)
        with Image.open(folder / "samples.png") as grid:
            assert grid.height == rows * 258 + 2 + TITLE_HEIGHT, "no titles"
    assert export.numbers["psnr"] > 20
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*.safetensors")) <= 6e6


def test_the_shipped_model_of_drawings_makes_them_itself_of_photos() -> None:
    export, pipe = ModelInfo(SHIPPED_DRAWING, "drawing"), Pix2PixPipeline.from_pretrained(SHIPPED_DRAWING, device="cpu")
    assert (export.height, export.width) == (256, 256) and export.numbers["psnr"] > 17
    for example in export.examples:
        assert set(np.unique(np.asarray(example.source)).tolist()) <= {0, 255}
        assert np.array_equal(np.asarray(pipe.make_source(example.target).convert("RGB")), np.asarray(example.source))
    assert sum(path.stat().st_size for path in SHIPPED_DRAWING.rglob("*.safetensors")) <= 6e6


def test_exports_of_strangers(tmp_path: Path) -> None:
    config = json.loads((SHIPPED / "preprocessor_config.json").read_text())

    def export(**changes: object) -> ModelInfo:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(config | changes))
        return ModelInfo(tmp_path, "theirs")

    plain = export()
    assert plain.examples == [] and plain.numbers == {} and plain.card == "" and plain.curves == []
    for changes in (
        {"image_size": [10**9, 1]},
        {"image_size": "large"},
        {"source": 3},
        {"source": {"mode": "rgb", "palette": [{"color": [0, 0, 999]}]}},
        {"source": {"mode": "rgb", "palette": 7}},
        {"source": {"mode": "labels", "classes": [1, 1000], "colors": [[0, 0, 0], [1, 1, 1]]}},
        {"source": {"mode": "labels", "classes": [1, 2], "colors": [[0, 0, 0], [1, 1, 1], [2, 2, 2]]}},
    ):
        with pytest.raises(UserError, match=r"preprocessor_config\.json of the model theirs"):
            export(**changes)
    (tmp_path / "samples.png").write_bytes(b"no picture")
    (tmp_path / "metrics.json").write_text("[1, 2")
    (tmp_path / "README.md").write_text(
        "---\nlicense: mit\n---\n# Mine\n![x](samples.png)\n\n*Pairs.*\n\n<img src='http://x/y.png'> text"
    )
    card = export()
    assert card.examples == [] and card.numbers == {} and card.card == "# Mine\n\n\n text"
    shutil.copyfile(SHIPPED / "samples.png", tmp_path / "samples.png")
    assert export(image_size=[64, 64]).examples == []  # rows of another size
    for values in (b"[" * 10**6, b'{"image_size": [1e999, 1]}', b'{"image_size": [NaN, 1]}', b'{"a": "\\ud800"}'):
        (tmp_path / "preprocessor_config.json").write_bytes(values)
        with pytest.raises(UserError, match=r"preprocessor_config\.json of the model theirs") as caught:
            ModelInfo(tmp_path, "theirs")
        assert str(tmp_path) not in str(caught.value)


def test_each_curve_is_shown_whole(tmp_path: Path) -> None:
    """However wide the numbers beside it are: nothing is drawn where the picture of all is cut."""
    (tmp_path / "model").mkdir()
    shutil.copyfile(SHIPPED / "preprocessor_config.json", tmp_path / "model" / "preprocessor_config.json")
    values = {"d_loss": 1.0, "g_gan": 2.0, "g_l1": 0.000123}, {"l1": 0.000123, "psnr": 20.0, "ssim": 0.123456}
    rows = [{"event": "train", **values[0]}, {"event": "validation", **values[1]}]
    lines = [json.dumps(row | {"step": step}) for step in (100_000, 200_000) for row in rows]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    draw_curves(tmp_path)
    curves = ModelInfo(tmp_path / "model", "own").curves
    assert len(curves) == 5
    for panel in map(np.asarray, curves):
        assert (panel[:, [0, 1, -2, -1]] == 255).all() and (panel < 255).any()


def test_what_an_export_of_strangers_shows_is_bounded(tmp_path: Path) -> None:
    """A card, metrics and samples that are small files, or seem so, and would take minutes or gigabytes."""
    shutil.copyfile(SHIPPED / "preprocessor_config.json", tmp_path / "preprocessor_config.json")
    export = ModelInfo(tmp_path, "theirs")
    (tmp_path / "README.md").write_text("![" * 40_000 + "[](" + "<img" * 10_000)
    assert "![" not in export.card
    with (tmp_path / "metrics.json").open("wb") as file:
        file.truncate(1 << 40)  # no disk has that; nor is it read
    assert export.numbers == {}
    Image.new("1", (11, 10**6)).save(tmp_path / "samples.png")  # a third of a million rows of 1x1
    export.height = export.width = 1
    assert export.samples is not None and export.examples == []
    (tmp_path / "metrics.json").write_text(json.dumps({f"{number} " + "x" * 99: number for number in range(5000)}))
    metrics = ModelInfo(tmp_path, "theirs").numbers
    assert len(metrics) == 100 and max(map(len, metrics)) == 40


def test_what_links_lead_to_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    shutil.copyfile(SHIPPED / "preprocessor_config.json", tmp_path / "export" / "preprocessor_config.json")
    for name in ("README.md", "samples.png", "metrics.json", "curves.png"):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes() if (SHIPPED / name).is_file() else b"secret")
        (tmp_path / "export" / name).symlink_to(tmp_path / name)
    Image.new("RGB", (9, 9)).save(tmp_path / "curves.png")
    export = ModelInfo(tmp_path / "export", "theirs")
    assert (export.card, export.samples, export.numbers, export.curves) == ("", None, {}, [])
