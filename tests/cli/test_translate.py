"""`pix2pix-hub translate`: names, depth and metadata stay, nothing is overwritten unasked, bad files stop nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from tiny_exports import GRAY16, LABELS, RGB16, noise, write_tiny_export

from pix2pix_hub import Pix2PixPipeline
from pix2pix_hub.cli import main
from pix2pix_hub.config import MakerOptions
from pix2pix_hub.data.pairs import images_in
from pix2pix_hub.image.maker import make_pair
from pix2pix_hub.image.read import read_image


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_export(tmp_path_factory.mktemp("rgb"))


def picture(path: Path, height: int = 20, width: int = 30, seed: int = 0, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise((height, width, 3), "uint8", seed)).save(path, **options)
    return path


def test_files_folders_and_patterns_keep_names_kinds_and_structure(model: Path, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    picture(photos / "a.png", 20, 30)
    picture(photos / "deep" / "b.JPG", 33, 21)
    picture(photos / "deep" / "c.tif", 8, 8)
    picture(tmp_path / "one.webp", 9, 50)
    picture(tmp_path / "many" / "x1.bmp", 1, 1)
    picture(tmp_path / "many" / "x2.bmp", 3, 700)
    picture(tmp_path / "many" / "y.bmp")
    (photos / "notes.txt").write_text("no image")
    inputs = [str(photos), str(tmp_path / "one.webp"), str(tmp_path / "many" / "x*.bmp")]
    assert main(["translate", str(model), *inputs, "--output", str(out)]) == 0
    written = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert set(written) == {"a.png", "deep/b.JPG", "deep/c.tif", "one.webp", "x1.bmp", "x2.bmp"}
    pipe = Pix2PixPipeline.from_pretrained(model)
    sources = [photos / "a.png", photos / "deep" / "c.tif", tmp_path / "one.webp", tmp_path / "many" / "x2.bmp"]
    for source in sources:
        place = written[source.relative_to(photos).as_posix() if photos in source.parents else source.name]
        with Image.open(place) as made, Image.open(source) as before:
            assert made.size == before.size and made.format == before.format
            assert np.array_equal(np.asarray(made.convert("RGB")), np.asarray(pipe(before)))
    with Image.open(written["deep/b.JPG"]) as made:
        assert made.format == "JPEG" and made.size == (21, 33)


def test_depth_is_kept(tmp_path: Path) -> None:
    """16-bit in, 16-bit out, whatever the model was trained on; a model of 16 bits fills a PNG of 16 bits."""
    deep = write_tiny_export(tmp_path / "deep", GRAY16, RGB16)
    shallow = write_tiny_export(tmp_path / "shallow")
    gray = noise((12, 13), "uint16")
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.save(tmp_path / "array.npy", gray)
    inputs = [str(tmp_path / name) for name in ("gray.png", "array.npy")]
    assert main(["translate", str(deep), *inputs, "--output", str(tmp_path / "out")]) == 0
    made = read_image(tmp_path / "out" / "gray.png", "x")
    assert made.kind == "rgb" and made.values.dtype == np.uint16
    assert np.array_equal(made.values, np.load(tmp_path / "out" / "array.npy"))
    assert np.array_equal(made.values, Pix2PixPipeline.from_pretrained(deep)(gray))
    assert made.values.max() > 60000 and (made.values % 257 != 0).any()  # neither clipped nor 8 bits stretched
    assert main(["translate", str(shallow), str(tmp_path / "gray.png"), "--output", str(tmp_path / "out2")]) == 0
    assert read_image(tmp_path / "out2" / "gray.png", "x").values.dtype == np.uint16


def test_metadata_is_kept_and_orientation_applied(model: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Artist] = 6, "somebody"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture(tmp_path / "photo.jpg", 20, 30, exif=exif, icc_profile=profile)
    assert main(["translate", str(model), str(tmp_path / "photo.jpg"), "--output", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "photo.jpg") as made:
        assert made.size == (20, 30)
        assert made.getexif()[ExifTags.Base.Artist] == "somebody"
        assert made.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert made.info["icc_profile"] == profile


def test_bad_files_are_listed_at_the_end(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    for number in range(3):
        picture(photos / f"{number}.png", seed=number)
    (photos / "0.png").write_bytes((photos / "0.png").read_bytes()[:200])
    (photos / "empty.png").touch()
    np.save(photos / "wrong.npy", np.zeros((4, 4, 7), np.uint8))
    assert main(["translate", str(model), str(photos), "--output", str(tmp_path / "out")]) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.png", "2.png"]
    said = capsys.readouterr().out
    assert "2 of 5 images" in said and "3 could not be translated" in said
    for name in ("0.png", "empty.png", "wrong.npy"):
        assert str(photos / name) in said


def test_nothing_is_overwritten_unasked(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = picture(tmp_path / "photos" / "a.png")
    before = source.read_bytes()
    assert main(["translate", str(model), str(source), "--output", str(tmp_path / "photos"), "--overwrite"]) == 2
    assert "would overwrite the input" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("precious")
    assert main(["translate", str(model), str(source), "--output", str(tmp_path / "out")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "a.png").read_text() == "precious"
    assert main(["translate", str(model), str(source), "--output", str(tmp_path / "out"), "--overwrite"]) == 0
    with Image.open(tmp_path / "out" / "a.png") as made:
        assert made.size == (30, 20)
    assert source.read_bytes() == before


def test_an_input_is_safe_under_a_suffix_that_gave_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """a.jpg becomes a.png there, where a.png is an input as well."""
    labels = write_tiny_export(tmp_path / "model", target=LABELS)
    folder = tmp_path / "photos"
    picture(folder / "in" / "a.jpg")
    png = picture(folder / "a.png", seed=1)
    before = png.read_bytes()
    inputs = [str(folder / "in" / "a.jpg"), str(png)]
    assert main(["translate", str(labels), inputs[0], "--output", str(folder), "--overwrite"]) == 0
    png.write_bytes(before)
    other = picture(tmp_path / "other" / "a.png")
    assert main(["translate", str(labels), inputs[0], str(other), "--output", str(folder), "--overwrite"]) == 2
    assert "would both be written" in capsys.readouterr().err
    assert png.read_bytes() == before


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.GIF", "a.bmp.gif", "a.webp"])
def test_a_kind_of_file_that_cannot_hold_the_result_gives_way_before_anything_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GIF, and JPEG and WebP of classes, become PNG: results that exist, and two of one name, are seen under that."""
    labels, out = write_tiny_export(tmp_path / "model", target=LABELS), tmp_path / "out"
    source, result = picture(tmp_path / "in" / name), Path(name).with_suffix(".png").name
    words = ["translate", "--output", str(out), str(labels), str(source)]
    assert main(words) == 0
    assert [path.name for path in out.iterdir()] == [result]
    with Image.open(out / result) as made:
        palette = made.getpalette("RGB")
        assert made.mode == "P" and set(np.unique(np.asarray(made))) <= set(LABELS.classes)
        assert palette is not None and palette[21:24] == [255, 0, 0]
    capsys.readouterr()
    assert main(words) == 2
    assert f"Results exist already (1 of 1), {out / result} among them" in capsys.readouterr().err
    other = picture(tmp_path / "other" / result)
    assert main([*words, str(other), "--overwrite"]) == 2
    assert f"{source} and {other} would both be written to {out / result}" in capsys.readouterr().err


def test_without_an_output_results_go_beside_their_sources_and_are_no_sources(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, deep = picture(tmp_path / "a.jpg"), picture(tmp_path / "in" / "b.png")
    words = ["translate", str(model), str(source), str(tmp_path / "in")]
    assert main(words) == 0
    assert "2 images translated, beside the sources, as NAME.pix2pix.*." in capsys.readouterr().out
    made = [tmp_path / "a.pix2pix.jpg", deep.with_name("b.pix2pix.png")]
    with Image.open(made[0]) as one, Image.open(source) as before:
        assert one.size == before.size and one.format == "JPEG"
    content = [path.read_bytes() for path in made]
    assert main(words) == 2 and "Results exist already (2 of 2)" in capsys.readouterr().err
    assert main(["translate", str(model), str(made[0])]) == 2 and "name sources" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*.*")) == sorted([source, deep, *made])
    assert images_in(tmp_path, deep=True) == [source, deep], "results are no pairs to train on"
    assert [path.read_bytes() for path in made] == content


def test_a_run_that_was_stopped_goes_on(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    for number, suffix in enumerate([".png", ".gif", ".jpg"]):
        picture(photos / f"{number}{suffix}", seed=number)
    words = ["translate", str(model), str(photos), "--output", str(out), "--skip-existing"]
    options = ["--stochastic", "--seed", "1", "--num-samples", "2"]
    assert main([*words, *options]) == 0
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(whole) == {"0_1.png", "0_2.png", "1_1.png", "1_2.png", "2_1.jpg", "2_2.jpg"}
    for name in ("1_2.png", "2_1.jpg", "2_2.jpg"):
        (out / name).unlink()
    kept = {path.name: path.stat().st_ino for path in out.iterdir()}
    capsys.readouterr()
    assert main([*words, *options]) == 0
    assert "3 images translated" in (said := capsys.readouterr().out) and "1 of them from before" in said
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    assert {name: (out / name).stat().st_ino for name in kept} == kept
    assert main([*words, "--overwrite"]) == 2


def test_a_file_that_is_not_what_its_name_says_is_named_with_its_input(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A PNG of 16 bits called .jpg becomes a .png after all, where one is there already."""
    source = picture(tmp_path / "deep.png")
    Image.fromarray(noise((8, 8), "uint16")).save(source)
    source = source.rename(tmp_path / "a.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("precious")
    assert main(["translate", str(model), str(source), "--output", str(tmp_path / "out")]) == 1
    assert f"\n  {source}: {tmp_path / 'out' / 'a.png'} exists" in capsys.readouterr().out
    assert (tmp_path / "out" / "a.png").read_text() == "precious"


def test_samples_are_numbered_and_repeatable(model: Path, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    for out in ("one", "two"):
        options = ["--stochastic", "--seed", "3", "--num-samples", "2", "--batch-size", "2" if out == "two" else "1"]
        assert main(["translate", str(model), str(source), "--output", str(tmp_path / out), *options]) == 0
    for name in ("a_1.png", "a_2.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "one" / "a_1.png").read_bytes() != (tmp_path / "one" / "a_2.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "No images were named"),
        (["nothing-here.png"], "nothing-here.png: expected a file"),
        (["no*.png"], "a pattern that files match"),
        (["."], "with images"),
        (["a.png", "--seed", "3"], "stochastic"),
        (["a.png", "--device", "abacus"], "abacus"),
        (["a.png", "--tile-size", "3"], "tile_size"),
        (["a.png", "other/a.png"], "would both be written"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_written(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: str,
) -> None:
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "a.png")
    picture(tmp_path / "other" / "a.png")
    monkeypatch.chdir(tmp_path / "empty" if words == ["."] else tmp_path)
    assert main(["translate", str(model), *words, "--output", "out"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("out").exists()


def test_photos_are_made_sources_of_first(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The result is that of the source that training had, in its size; other models say that they have none."""
    maker = MakerOptions("mask", shorter_side=16)
    own = write_tiny_export(tmp_path / "model", maker=maker)
    photo = picture(tmp_path / "photo.png")
    source, _ = make_pair(read_image(photo, "x"), maker, "x")
    words = [str(photo), "--make-source", "--output", str(tmp_path / "out")]
    assert main(["translate", str(own), *words]) == 0
    made = np.asarray(Image.open(tmp_path / "out" / "photo.png"))
    assert made.shape == (16, 24, 3)
    assert np.array_equal(made, np.asarray(Pix2PixPipeline.from_pretrained(own)(source.picture())))
    assert main(["translate", str(model), *words]) == 2
    assert "make_source is for models" in capsys.readouterr().err


def test_half_of_a_pair_is_translated_alone(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = np.asarray(Image.open(picture(tmp_path / "pairs" / "a.png", 16, 32)))
    picture(tmp_path / "pairs" / "odd.png", 16, 31)
    trained = shutil.copytree(model, tmp_path / "model")
    config = json.loads((trained / "preprocessor_config.json").read_text()) | {"source_half": "right"}
    (trained / "preprocessor_config.json").write_text(json.dumps(config))
    pipe = Pix2PixPipeline.from_pretrained(model)
    for side, source in (("left", whole[:, :16]), ("right", whole[:, 16:]), ("whole", whole)):
        out = tmp_path / side
        bad = main(["translate", str(trained), str(tmp_path / "pairs"), "--side", side, "--output", str(out)])
        assert bad == (side != "whole"), "odd.png has no halves"
        np.testing.assert_array_equal(np.asarray(Image.open(out / "a.png")), pipe(source))
    said = capsys.readouterr()
    pair = str(tmp_path / "pairs" / "a.png")
    assert "--side" not in said.err and main(["translate", str(trained), pair, "--output", str(tmp_path / "one")]) == 0
    assert "if it is such a pair, translate its right half alone: --side right." in capsys.readouterr().err
    assert "odd.png is 31 pixels wide; expected an even width" in said.out
