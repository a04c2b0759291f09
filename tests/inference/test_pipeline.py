"""`Pix2PixPipeline`: any size and kind in, the same out; the same at every call; and errors that say what is wrong."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import HubServer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_exports import GRAY, GRAY16, LABELS, RGB16, noise, write_tiny_export

from pix2pix_hub import Pix2PixPipeline
from pix2pix_hub.cli import main
from pix2pix_hub.config import MakerOptions, PairOptions
from pix2pix_hub.data.pairs import load_pairs
from pix2pix_hub.evaluation.evaluate import load_model
from pix2pix_hub.export import GENERATOR_FILES, PREPROCESSOR_NAME
from pix2pix_hub.image.format import RGB, PaletteColor, PixelFormat, from_model_range, to_model_range
from pix2pix_hub.image.read import Decoded
from pix2pix_hub.image.write import encode
from pix2pix_hub.models import load_generator
from pix2pix_hub.synthetic import CMP_CLASSES, render_pair
from pix2pix_hub.ui.models import choose_models
from pix2pix_hub.util import UserError

FLOATS = PixelFormat("gray", 1, "float32", -3.0, 5.0)
BANDS = PixelFormat("channels", 5, "uint16", 0.0, 65535.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_export(tmp_path_factory.mktemp("rgb"))


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Pix2PixPipeline:
    return Pix2PixPipeline.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory):
    """`make(source, target, **options)` → a pipeline, made once for each call's arguments."""
    made: dict = {}

    def build(source: PixelFormat = RGB, target: PixelFormat = RGB, **options) -> Pix2PixPipeline:
        key = (source, target, *sorted(options.items()))
        if key not in made:
            folder = write_tiny_export(tmp_path_factory.mktemp("model"), source, target, **options)
            made[key] = Pix2PixPipeline.from_pretrained(folder, device="cpu")
        return made[key]

    return build


# ---------------------------------------------------------------------------------------------------------- sizes


@settings(max_examples=60)
@given(st.data())
def test_output_size_is_input_size(make, data: st.DataObject) -> None:
    """Any height and width from 1 to 700, any mode, whole or in tiles; and the PIL image keeps its mode's family."""
    mode = data.draw(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"]))
    sides = st.one_of(st.integers(1, 20), st.integers(1, 700))
    width, height = data.draw(sides), data.draw(sides)
    norm, bottleneck = data.draw(st.sampled_from([("instance", "conv"), ("batch", "none"), ("none", "conv")]))
    pipe = make(norm=norm, bottleneck=bottleneck)
    image = Image.fromarray(noise((height, width, 3), seed=height)).convert(mode)
    made = pipe(image, tile_size=data.draw(st.sampled_from([64, 256, 1024])))
    assert made.size == (width, height)
    assert made.mode == "RGB"


def test_a_size_that_fits_is_not_touched(pipe: Pix2PixPipeline) -> None:
    """Tensors come out of the pipeline exactly as out of the network."""
    source = torch.rand(2, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        expected = torch.cat([pipe.generator(one[None]) for one in source])
    assert torch.equal(pipe(source), expected)


def test_padding_reflects_and_beyond_that_repeats(pipe: Pix2PixPipeline) -> None:
    """Against NumPy's own padding: by 3 and 4 rows; of 5 columns 11 are asked for, 4 at either end can be reflected."""
    source = torch.rand(3, 25, 5) * 2 - 1
    rows = np.pad(source.numpy(), ((0, 0), (3, 4), (0, 0)), mode="reflect")
    columns = np.pad(np.pad(rows, ((0, 0), (0, 0), (4, 4)), mode="reflect"), ((0, 0), (0, 0), (1, 2)), mode="edge")
    with torch.no_grad():
        expected = pipe.generator(torch.from_numpy(columns)[None])[0, :, 3:28, 5:10]
    assert columns.shape == (3, 32, 16)
    assert torch.allclose(pipe(source), expected, atol=1e-6)


# ------------------------------------------------------------------------------------------------- kinds and depths


def test_every_kind_comes_back_as_it_went_and_they_agree(pipe: Pix2PixPipeline, tmp_path: Path) -> None:
    pixels = noise((21, 34, 3))
    expected = pipe(pixels)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    assert isinstance(expected, np.ndarray) and expected.dtype == np.uint8
    for image in (Image.fromarray(pixels), tmp_path / "a.png", str(tmp_path / "a.png")):
        made = pipe(image)
        assert isinstance(made, Image.Image) and np.array_equal(np.asarray(made), expected)
    made = pipe(tensor)
    assert made.dtype == torch.uint8 and np.array_equal(made.permute(1, 2, 0).numpy(), expected)
    made = pipe(to_model_range(tensor))
    assert made.dtype == torch.float32
    assert np.array_equal(from_model_range(made).permute(1, 2, 0).numpy(), expected)
    floats = pipe((pixels / 255.0).astype(np.float32))
    assert floats.dtype == np.float32 and np.abs(floats * 255.0 - expected).max() <= 0.501
    deep = pipe(pixels.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16 and np.abs(deep / 257.0 - expected).max() <= 0.501
    for output_type, kind in (("pil", Image.Image), ("numpy", np.ndarray), ("torch", torch.Tensor)):
        assert isinstance(pipe(tensor, output_type=output_type), kind)


def test_its_repr_says_what_it_is(pipe: Pix2PixPipeline, folder: Path, make) -> None:
    parameters = f"{sum(values.numel() for values in pipe.generator.parameters()):,}"
    assert repr(pipe) == (
        f"Pix2PixPipeline('{folder}': UNetGenerator of {parameters} parameters, 8-bit RGB → 8-bit RGB, "
        "trained at 32x32 (height x width), cpu, float32)"
    )
    assert "16-bit gray → labels of 3 classes" in repr(make(GRAY16, LABELS))


def test_a_notebook_shows_what_it_is_and_samples(folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "a & b"))
    pipe = Pix2PixPipeline.from_pretrained(place, device="cpu")
    shown = pipe._repr_html_()
    assert html.unescape(shown) == f"<p>{pipe!r}</p>" and "a &amp; b" in shown
    (place / "samples.png").write_bytes(encode(Decoded(noise((900, 600, 3), "uint8"), "rgb"), "samples", ".png"))
    picture = re.search(r'src="data:image/webp;base64,([^"]+)"', pipe._repr_html_())
    assert picture is not None and len(picture[1]) < 400_000 < (place / "samples.png").stat().st_size
    assert Image.open(io.BytesIO(base64.b64decode(picture[1]))).size == (512, 768)
    (place / "samples.png").write_bytes(b"damaged")
    assert pipe._repr_html_() == shown
    (place / "samples.png").unlink()
    (place / "samples.png").symlink_to(Path(__file__))  # a file elsewhere, which nobody meant to show
    assert pipe._repr_html_() == shown


def test_lists_and_batches_keep_their_shape(pipe: Pix2PixPipeline) -> None:
    a, b = noise((20, 20, 3)), Image.fromarray(noise((9, 40, 3)))
    made = pipe([a, b])
    assert isinstance(made[0], np.ndarray) and isinstance(made[1], Image.Image)
    assert pipe([]) == []
    assert pipe(torch.zeros(3, 3, 17, 8)).shape == (3, 3, 17, 8)
    assert pipe(torch.zeros(0, 3, 17, 8)).shape == (0, 3, 17, 8)
    assert len(pipe(torch.zeros(2, 3, 17, 8), output_type="pil")) == 2


def test_gray_and_transparent_images_are_converted_as_in_training(make) -> None:
    """As `Image.convert` does it, with white under what is transparent."""
    rgba = Image.fromarray(noise((8, 8, 4)), "RGBA")
    over_white = Image.alpha_composite(Image.new("RGBA", (8, 8), "white"), rgba).convert("RGB")
    gray = Image.fromarray(noise((8, 8)))
    for model, image, expected in (
        (make(), rgba, over_white),
        (make(), gray, gray.convert("RGB")),
        (make(), np.asarray(rgba), np.asarray(over_white)),
        (make(GRAY), rgba, over_white.convert("L")),
    ):
        assert np.array_equal(np.asarray(model(image)), np.asarray(model(expected)))


def test_sixteen_bits_are_neither_cut_nor_clipped(make) -> None:
    pipe = make(GRAY16, RGB16)
    pixels = noise((20, 30), "uint16")
    made = pipe(pixels)
    tensor = torch.from_numpy(pixels.astype(np.float64) / 65535 * 2 - 1).float()[None]
    expected = (pipe(tensor).double().add(1) / 2 * 65535).permute(1, 2, 0).numpy()
    assert made.dtype == np.uint16 and np.abs(made - expected).max() <= 0.51
    assert made.max() > 65000 and made.min() < 500
    assert pipe(Image.fromarray(pixels)).dtype == np.uint16  # no PIL mode for 16-bit colours
    assert make(GRAY16, GRAY16)(Image.fromarray(pixels)).mode == "I;16"


def test_a_model_of_a_chosen_range_takes_and_gives_stored_values(make) -> None:
    """As a model of all 16 bits does with the same values, clipped and stretched."""
    chosen = replace(GRAY16, low=200.0, high=10_400.0, clip=True)
    values = noise((32, 32), "uint16") % 12_000
    made = make(chosen, chosen)(values)
    stretched = ((values.clip(200, 10_400).astype(np.float32) - 200) / 10_200) * 2 - 1
    wanted = make(GRAY16, GRAY16)(torch.from_numpy(stretched)[None]).numpy()[0]
    assert made.dtype == np.uint16 and made.min() >= 200 and made.max() <= 10_400
    np.testing.assert_allclose(made, (wanted + 1) / 2 * 10_200 + 200, atol=1)


def test_float_models_take_and_give_stored_values(make) -> None:
    pipe = make(FLOATS, FLOATS)
    pixels = noise((20, 30), "float32") * 8 - 3
    made = pipe(pixels)
    assert made.dtype == np.float32 and made.shape == (20, 30)
    assert -3.0 <= made.min() < -2.0 and 4.0 < made.max() <= 5.0
    assert pipe(Image.fromarray(pixels)).mode == "F"
    assert pipe(pixels[:, :, None]).shape == (20, 30, 1)


def test_many_channels(make) -> None:
    assert make(BANDS, GRAY)(noise((20, 30, 5), "uint16")).shape == (20, 30)
    assert make(GRAY, BANDS)(noise((20, 30))).shape == (20, 30, 5)


def test_labels_come_as_values_or_one_hot_and_go_as_values(make) -> None:
    pipe = make(LABELS, LABELS)
    values = np.random.default_rng(0).choice(LABELS.classes, (20, 30)).astype(np.uint8)
    one_hot = np.stack([values == value for value in LABELS.classes], -1)
    made = pipe(values)
    assert set(np.unique(made)) <= set(LABELS.classes) and made.shape == (20, 30)
    for other in (one_hot, one_hot.astype(np.float32), values.astype(np.int64)):
        assert np.array_equal(pipe(other), made)
    scores = pipe(torch.from_numpy(one_hot).permute(2, 0, 1).float() * 2 - 1)
    assert scores.shape == (3, 20, 30)
    assert np.array_equal(np.array(LABELS.classes)[scores.argmax(0).numpy()], made)
    palette = Image.fromarray(values, "P")
    palette.putpalette([0] * 768)
    shown = pipe(palette)
    assert shown.mode == "P" and np.array_equal(np.asarray(shown), made)
    assert shown.convert("RGB").getpixel((0, 0)) == LABELS.colors[LABELS.classes.index(int(made[0, 0]))]


def test_orientation_is_applied(pipe: Pix2PixPipeline, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise((20, 30, 3))).save(tmp_path / "a.png", exif=exif)
    assert pipe(tmp_path / "a.png").size == (20, 30)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(pipe(image)), np.asarray(pipe(tmp_path / "a.png")))


ARRAYS = "arrays are (height, width, channels): give image.transpose(1, 2, 0)"
TENSORS = "tensors are (channels, height, width): give image.permute(2, 0, 1)"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (noise((4, 4, 7)), "8-bit 7-channel, where 8-bit RGB is expected"),
        (np.full((4, 4, 3), 255.0), "floats from 255 to 255; expected them in [0, 1]"),
        (np.full((4, 4, 3), np.nan, np.float32), "NaN"),
        (torch.full((3, 4, 4), 2.0), "floats from 2 to 2; expected them in [-1, 1]"),
        (torch.full((3, 4, 4), torch.nan), "nan"),
        (torch.zeros(4, 4), "expected (C, H, W)"),
        (torch.zeros(7, 4, 4), "7-channel"),
        (Image.new("RGB", (0, 4)), "the image has no pixels"),
        (np.zeros((0, 4, 3), np.uint8), "the image has no pixels (its shape is 0x4x3)"),
        (np.zeros((4, 0), np.float32), "the image has no pixels"),
        (torch.zeros(3, 0, 4), "the image has no pixels"),
        (torch.zeros(3, 4, 0, dtype=torch.uint8), "the image has no pixels"),
        (np.zeros((3, 20, 30), np.uint8), f"(3, 20, 30); {ARRAYS}"),
        (np.zeros((1, 20, 30), np.float32), f"(1, 20, 30); {ARRAYS}"),
        (torch.zeros(20, 30, 3), f"(20, 30, 3); {TENSORS}"),
        (torch.zeros(20, 30, 3, dtype=torch.uint8), f"(20, 30, 3); {TENSORS}"),
        (np.zeros((4, 4, 3), complex), "complex"),
        ("nothing.png", "nothing.png could not be read"),
        (7, "the image is int"),
        ([noise((4, 4, 3)), noise((4, 4, 7))], "image 2"),
    ],
)
def test_what_does_not_fit_is_said(pipe: Pix2PixPipeline, image, said: str) -> None:
    with pytest.raises(UserError) as caught:
        pipe(image)
    assert said in str(caught.value)


# -------------------------------------------------------------------------------------------------------- the same


def test_the_same_input_gives_bitwise_the_same(folder: Path, pipe: Pix2PixPipeline) -> None:
    image = torch.rand(3, 50, 61) * 2 - 1
    first = pipe(image)
    torch.manual_seed(1)
    assert torch.equal(Pix2PixPipeline.from_pretrained(folder, device="cpu")(image), first)


@pytest.mark.parametrize("stochastic", [False, True])
def test_batched_is_one_by_one(pipe: Pix2PixPipeline, stochastic: bool) -> None:
    """Of mixed sizes, in batches of any number."""
    options = {"stochastic": True, "seed": 5} if stochastic else {}
    images = [torch.rand(3, size, 40 + size % 3) * 2 - 1 for size in (40, 33, 40, 35, 90, 40, 39)]
    alone = [pipe(image, **options) for image in images]
    for batch_size in (1, 2, 3, 8):
        for made, expected in zip(pipe(images, batch_size=batch_size, **options), alone, strict=True):
            assert (made - expected).abs().max() < 1e-5


def test_samples_differ_and_follow_from_seed_image_and_number(pipe: Pix2PixPipeline) -> None:
    image, other = torch.rand(2, 3, 40, 40) * 2 - 1
    samples = pipe(image, stochastic=True, seed=1, num_samples=3)
    assert len(samples) == 3
    plain = pipe(image)
    for number, sample in enumerate(samples):
        assert all((sample - another).abs().max() > 0.01 for another in [plain, *samples[:number]])
    together = pipe([other, image], stochastic=True, seed=1, num_samples=2, batch_size=4)
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(together[1], samples[:2], strict=True))
    assert (pipe(image, stochastic=True, seed=2) - samples[0]).abs().max() > 0.01
    assert not torch.equal(pipe(image, stochastic=True), pipe(image, stochastic=True))
    assert torch.equal(pipe(image), plain)  # nothing of it stays behind
    assert not pipe.generator.training


def test_threads_do_not_get_into_each_other(pipe: Pix2PixPipeline) -> None:
    """Dropout, and statistics of large images, are put into the network while it is used: an app has many users."""
    source = torch.rand(3, 90, 130) * 2 - 1
    options: list[dict] = [{}, {"stochastic": True, "seed": 3}, {"tile_size": 64}] * 4
    expected = [pipe(source, **chosen) for chosen in options[:3]] * 4
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda chosen: pipe(source, **chosen), options))
    assert all(torch.equal(one, other) for one, other in zip(made, expected, strict=True))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": 1}, "stochastic=True"),
        ({"num_samples": 2}, "stochastic=True"),
        ({"stochastic": True, "num_samples": 0}, "1 or more"),
        ({"stochastic": True, "seed": -1}, "seed is -1; expected 0 or more"),
        ({"batch_size": 0}, "1 or more"),
        ({"tile_size": 10}, "tile_size is 10"),
        ({"output_type": "jpeg"}, "'jpeg'"),
    ],
)
def test_options_that_cannot_be_are_refused(pipe: Pix2PixPipeline, make, options: dict, said: str) -> None:
    with pytest.raises(UserError) as caught:
        pipe(noise((4, 4, 3)), **options)
    assert said in str(caught.value)
    with pytest.raises(UserError, match="this one has none"):
        make(dropout=0.0)(noise((4, 4, 3)), stochastic=True)


def test_progress_counts_to_its_total(pipe: Pix2PixPipeline) -> None:
    seen: list[tuple[int, int]] = []
    pipe([noise((20, 20, 3))] * 3 + [noise((80, 200, 3))], tile_size=64, progress=lambda *step: seen.append(step))
    assert [done for done, _ in seen] == list(range(1, seen[0][1] + 1))
    assert {total for _, total in seen} == {seen[-1][0]}


# ---------------------------------------------------------------------------------------------- loading and realism


def test_a_run_an_export_and_both_networks(folder: Path, tmp_path: Path, pipe: Pix2PixPipeline) -> None:
    shutil.copytree(folder, tmp_path / "run" / "model")
    of_run = Pix2PixPipeline.from_pretrained(tmp_path / "run", device="cpu")
    assert of_run.folder == tmp_path / "run" / "model"
    assert np.array_equal(of_run(noise((9, 9, 3))), pipe(noise((9, 9, 3))))
    shutil.rmtree(of_run.folder / "discriminator")
    assert of_run.discriminator is None
    with pytest.raises(UserError, match="holds no discriminator"):
        of_run.realism(noise((9, 9, 3)), noise((9, 9, 3)))


def test_a_hub_model_is_its_export(folder: Path, pipe: Pix2PixPipeline, hub: HubServer, tmp_path: Path) -> None:
    """With both networks at one commit, which may be named; also once the Hub is gone, for commands and the page."""
    repo, image = hub.add_folder("tester/maps", folder), noise((16, 16, 3))
    hub.create("tester/one", {name: (folder / name).read_bytes() for name in GENERATOR_FILES})
    one = Pix2PixPipeline.from_pretrained("tester/one", device="cpu")
    assert np.array_equal(one(image), pipe(image)) and one.discriminator is None
    first, other = repo.head().oid, write_tiny_export(tmp_path / "other", seed=1)
    hub.add_commit(repo, {"model.safetensors": (other / "model.safetensors").read_bytes()})
    name = f"tester/maps@{first}"
    assert not np.array_equal(Pix2PixPipeline.from_pretrained("tester/maps", device="cpu")(image), pipe(image))
    for options in ({}, {"local_files_only": True}):
        named = Pix2PixPipeline.from_pretrained(name, device="cpu", **options)
        assert np.array_equal(named(image), pipe(image))
        assert np.array_equal(named.realism(image, image), pipe.realism(image, image))
    weights = load_generator(name).state_dict()
    assert all(torch.equal(values, weights[key]) for key, values in pipe.generator.state_dict().items())
    Image.fromarray(image).save(tmp_path / "a.png")
    assert main(["translate", name, str(tmp_path / "a.png"), "--output", str(tmp_path / "out")]) == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")), pipe(image))
    assert choose_models(name) == {name: name}
    assert load_model(name).name == "tester/maps" and load_model(name).revision == first
    with pytest.raises(UserError, match="tester/none"):
        Pix2PixPipeline.from_pretrained("tester/none")


def test_realism_is_the_discriminators_map(pipe: Pix2PixPipeline) -> None:
    source, image = noise((64, 96, 3)), noise((64, 96, 3), seed=1)
    pair = torch.cat([to_model_range(torch.from_numpy(side).permute(2, 0, 1)) for side in (source, image)])[None]
    assert pipe.discriminator is not None
    with torch.no_grad():
        expected = pipe.discriminator.probabilities(pair)[0, 0].numpy()
    made = pipe.realism(Image.fromarray(source), image)
    assert made.dtype == np.float32 and np.allclose(made, expected, atol=1e-6)
    assert pipe.realism(noise((1, 5, 3)), noise((1, 5, 3))).shape == (2, 2)
    with pytest.raises(UserError, match="64x96 and 64x95"):
        pipe.realism(source, image[:, :95])


@pytest.mark.parametrize("dtype", ["bf16", "fp16", torch.bfloat16])
def test_half_precision_is_close(folder: Path, pipe: Pix2PixPipeline, dtype) -> None:
    half = Pix2PixPipeline.from_pretrained(folder, device="cpu", dtype=dtype)
    image = noise((40, 200, 3))
    assert next(half.generator.parameters()).dtype == half.dtype != torch.float32
    difference = np.abs(half(image).astype(float) - pipe(image))
    assert 0 < difference.mean() < 8
    assert np.abs(half(image, tile_size=64).astype(float) - half(image)).mean() < 8


def test_it_moves_and_knows_the_names_of_diffusers(folder: Path) -> None:
    image = noise((20, 30, 3), "uint8")
    short = Pix2PixPipeline.from_pretrained(folder, device="cpu", torch_dtype=torch.bfloat16)
    pipe = Pix2PixPipeline.from_pretrained(folder, device="cpu", torch_dtype="float32")
    exact = pipe(image)
    assert pipe.to("cpu") is pipe and pipe.dtype == torch.float32 and np.array_equal(pipe(image), exact)
    assert pipe.to(torch.bfloat16) is pipe and pipe.dtype == short.dtype == torch.bfloat16
    weights = list(pipe.generator.parameters())
    assert {weight.dtype for weight in weights} == {torch.bfloat16}
    assert all(weight.is_contiguous() for weight in weights), "a CPU would copy those of small maps for each image"
    made = pipe(image)
    assert np.array_equal(made, short(image)) and not np.array_equal(made, exact)
    with pytest.raises(UserError, match="device 'nowhere' cannot be used"):
        pipe.to("nowhere", "float32")
    assert pipe.dtype == torch.bfloat16 and pipe.to("cpu", "float32").dtype == torch.float32
    with pytest.raises(UserError, match="give one of them"):
        Pix2PixPipeline.from_pretrained(folder, dtype="fp16", torch_dtype=torch.float16)


def test_an_address_is_fetched_only_where_that_is_allowed(
    pipe: Pix2PixPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    Image.fromarray(noise((20, 30, 3), "uint8")).save(tmp_path / "a.png")
    (tmp_path / "words.txt").write_text("no image")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(UserError, match=f"{address}/a.png is an address.*allow_download=True"):
            pipe(f"{address}/a.png")
        assert not asked
        made = pipe([f"{address}/a.png", tmp_path / "a.png"], allow_download=True)
        assert all(np.array_equal(np.asarray(one), np.asarray(pipe(str(tmp_path / "a.png")))) for one in made)
        monkeypatch.setattr("pix2pix_hub.inference.pipeline.MAX_DOWNLOAD_BYTES", 100)
        for name, said in (("b.png", "404"), ("words.txt", "not a picture"), ("a.png", "has more than")):
            with pytest.raises(UserError, match=f"{address}/{name} .*{said}"):
                pipe(f"{address}/{name}", allow_download=True)
        server.shutdown()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"device": "abacus"}, "abacus"), ({"device": "cuda:77"}, "cuda"), ({"dtype": "int8"}, "int8")],
)
def test_devices_and_dtypes_that_are_none(folder: Path, options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Pix2PixPipeline.from_pretrained(folder, **options)


@pytest.mark.parametrize(
    "change",
    [
        {"source": None},
        {"source": {"mode": "rgb"}, "image_size": 7},
        {"size_multiple": "8"},
        {"size_multiple": 10**9},
        {"image_size": [32, -1]},
        {"source": {"mode": "rgb", "channels": 4}},
        {"source": {"mode": "labels", "channels": 3, "classes": [1, 2, 300]}},
        {"source": {"mode": "labels", "channels": 2, "classes": [7, 7]}},
        {"source": {"palette": [{"color": [1, 2, 3], "name": None, "share": 0.1}] * 5000}},
        {"image_size": [True, 64]},
        {"source": {"mode": "gray", "channels": 3}},
        {"target": {"mode": "rgb", "dtype": "object"}},
        {"target": {"low": 1.0, "high": 0.0}},
        {"target": {"clip": True}},
        {"target": {"dtype": "uint16", "low": -1.0, "high": 9.0, "clip": True}},
        {"target": {"dtype": "uint16", "low": 0.0, "high": 65536.0, "clip": True}},
        {"target": {"dtype": "float32", "low": 0.0, "high": 1e39, "clip": True}},
        {"target": {"dtype": "uint16", "low": 0.0, "high": 9.0, "clip": 1}},
        {"target": {"mode": "gray", "channels": 1}},
    ],
)
def test_a_preprocessor_that_cannot_be_is_refused(folder: Path, tmp_path: Path, change: dict) -> None:
    """Ill-formed, or of another model; it comes from anybody."""
    shutil.copytree(folder, tmp_path / "model")
    change_preprocessor(tmp_path / "model", change)
    with pytest.raises(UserError, match=PREPROCESSOR_NAME):
        Pix2PixPipeline.from_pretrained(tmp_path / "model")


def change_preprocessor(model: Path, change: dict) -> None:
    path = model / PREPROCESSOR_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


# ----------------------------------------------------------------------------------------------------------- hints


def test_a_photo_given_to_a_model_of_flat_colours_is_pointed_out_once(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels, photo = render_pair(1, (128, 128), seed=7)
    palette = tuple(PaletteColor(color, name, 0.1) for name, color in CMP_CLASSES.items())
    model = write_tiny_export(tmp_path / "flat", replace(RGB, palette=palette))
    pipe = Pix2PixPipeline.from_pretrained(model, device="cpu")
    labels.save(tmp_path / "labels.jpg", quality=50)
    pipe([labels, str(tmp_path / "labels.jpg"), labels.resize((64, 64))])  # smoothed, it is still one
    assert caplog.messages == []
    pipe([photo.convert("L"), photo])
    assert (
        len(caplog.messages) == 1 and "image 1 looks like a photo" in caplog.text and "12 flat colours" in caplog.text
    )
    Pix2PixPipeline.from_pretrained(folder, device="cpu")(photo)  # whose model knows no palette
    assert len(caplog.messages) == 1
    Image.eval(labels, lambda value: 255 - value // 2).save(tmp_path / "others.png")
    Pix2PixPipeline.from_pretrained(model, device="cpu")(str(tmp_path / "others.png"))
    assert "others.png has other colours than the 12 flat ones" in caplog.messages[-1]


def test_a_whole_pair_given_to_a_model_of_pairs_side_by_side_is_pointed_out(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = shutil.copytree(folder, tmp_path / "model")
    for half in ("middle", 1):
        change_preprocessor(model, {"source_half": half})
        with pytest.raises(UserError, match="source_half"):
            Pix2PixPipeline.from_pretrained(model)
    change_preprocessor(model, {"source_half": "right"})
    pipe = Pix2PixPipeline.from_pretrained(model, device="cpu")
    pipe([noise((32, 32, 3)), noise((64, 32, 3)), noise((32, 48, 3))])
    assert caplog.messages == []
    pipe([noise((32, 64, 3)), noise((16, 32, 3))])
    assert len(caplog.messages) == 1 and "translate its right half alone." in caplog.text
    Pix2PixPipeline.from_pretrained(folder, device="cpu")(noise((32, 64, 3)))
    assert len(caplog.messages) == 1


def test_folders_that_are_no_export_and_exports_with_more_in_them(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="expected an export"):
        Pix2PixPipeline.from_pretrained(tmp_path / "empty")
    model = Path(shutil.copytree(folder, tmp_path / "model"))
    change_preprocessor(model, {"of_a_later_version": {"palette": [1]}})
    assert Pix2PixPipeline.from_pretrained(model).preprocessor.source == RGB
    (model / PREPROCESSOR_NAME).unlink()
    with pytest.raises(UserError, match=PREPROCESSOR_NAME):
        Pix2PixPipeline.from_pretrained(model)


def test_a_deep_image_is_held_few_times(tmp_path: Path) -> None:
    """16-bit RGBA over white: as stored, as floats and as the result."""
    side = 3000
    (tmp_path / "x.png").write_bytes(encode(Decoded(np.zeros((side, side, 4), np.uint16), "rgba"), "x"))
    write_tiny_export(tmp_path / "export", discriminator=False)
    script = f"""
import re, numpy, torch
from pathlib import Path
from pix2pix_hub import Pix2PixPipeline
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
torch.set_num_threads(1)
pipe = Pix2PixPipeline.from_pretrained({str(tmp_path / "export")!r})
pipe(numpy.zeros((1100, 1100, 3), numpy.uint8))  # in tiles, too
before = peak()
made = pipe({str(tmp_path / "x.png")!r})
print((peak() - before) / {side**2}, made.shape, made.min())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    bytes_a_pixel, made = done.stdout.split(maxsplit=1)
    assert made.startswith(f"({side}, {side}, 3)") and float(bytes_a_pixel) < 40


# ----------------------------------------------------------------------------------------------- sources of photos


@pytest.mark.parametrize("maker", [MakerOptions("mask"), MakerOptions("edges", shorter_side=32), MakerOptions("noise")])
def test_make_source_gives_what_was_trained_on(make, maker: MakerOptions, tmp_path: Path) -> None:
    """Bit for bit, whatever kind the photo comes as; the result is that of the stored source."""
    photos, stored = tmp_path / "photos", tmp_path / "stored"
    photos.mkdir()
    render_pair(1, (40, 56))[1].save(photos / "a.png")
    render_pair(2, (40, 56))[1].convert("L").save(photos / "b.jpg", quality=80)
    how = [f"--shorter-side={maker.shorter_side}"] if maker.shorter_side else []
    assert main(["data", "make", maker.kind, str(photos), *how, "--output", str(stored)]) == 0
    pipe = make(RGB, RGB, maker=maker)
    pairs = load_pairs(PairOptions(str(stored), validation_split="train"))
    for index, name in enumerate(("a.png", "b.jpg")):
        source, target = pairs.train.read(index)
        photo = Image.open(photos / name)
        kinds = [photos / name, photo, np.asarray(photo), np.asarray(photo) / np.float32(255)]
        kinds.append(torch.from_numpy(np.atleast_3d(np.array(photo))).permute(2, 0, 1))
        kinds.append(kinds[-1] / 127.5 - 1)
        for kind in kinds:
            assert np.array_equal(pipe.make_source(kind).values, source.values)
            made = pipe(kind, make_source=True, output_type="decoded")
            assert np.array_equal(made.values, pipe(source, output_type="decoded").values)
        assert target.size == source.size == ((32, 45) if maker.shorter_side else (40, 56))


def test_a_model_without_a_maker_says_so(pipe: Pix2PixPipeline) -> None:
    for call in (lambda: pipe([], make_source=True), lambda: pipe.make_source(Image.new("RGB", (8, 8)))):
        with pytest.raises(UserError, match="make_source is for models trained on pairs that `pix2pix-hub data make`"):
            call()


@pytest.mark.parametrize("wrong", ["gray", {"kind": "oil"}, {"kind": "blur", "radius": 1e99}, {"kind": "gray", "a": 1}])
def test_a_strange_maker_in_an_export_is_refused(folder: Path, tmp_path: Path, wrong: object) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = json.loads((copy / PREPROCESSOR_NAME).read_text()) | {"source_maker": wrong}
    (copy / PREPROCESSOR_NAME).write_text(json.dumps(content))
    with pytest.raises(UserError, match="is not as an export has it"):
        Pix2PixPipeline.from_pretrained(copy)
