"""Sources made from photos: each kind against another way to compute it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import feature
from tiny_exports import noise

from pix2pix_hub.config import MAKER_DEFAULTS, MakerOptions
from pix2pix_hub.image.maker import HOLE, make_pair
from pix2pix_hub.image.read import Decoded, from_memory
from pix2pix_hub.synthetic import render_pair
from pix2pix_hub.util import UserError


def made(photo: np.ndarray, kind: str, **options: Any) -> np.ndarray:
    """The source as `(H, W)` or `(H, W, 3)`, of the photo's size."""
    source, target = make_pair(from_memory(photo, "photo"), MakerOptions(kind, **options), "photo")
    assert np.array_equal(np.asarray(target.picture()), photo)
    assert source.size == target.size
    return np.asarray(source.picture())


@pytest.fixture(scope="module")
def facade() -> np.ndarray:
    return np.asarray(render_pair(3, (97, 128))[1])


# --------------------------------------------------------------------------------------------------------- edges


def test_edges_are_cannys_above_otsus_threshold(facade: np.ndarray) -> None:
    gray = np.sqrt(np.asarray(Image.fromarray(facade).convert("L")) / 255.0)
    smooth = ndimage.gaussian_filter(gray, 1.2, mode="nearest")
    slope = np.sqrt(ndimage.sobel(smooth, 0) ** 2 + ndimage.sobel(smooth, 1) ** 2)
    counts, borders = np.histogram(slope, 256)
    values = (borders[:-1] + borders[1:]) / 2
    between = []  # Otsu: the variance between what is below and above
    for cut in range(1, 256):
        low, high = counts[:cut].sum(), counts[cut:].sum()
        apart = (counts[:cut] @ values[:cut]) / low - (counts[cut:] @ values[cut:]) / high
        between.append(low * high * apart**2)
    strong = values[int(np.argmax(between))]
    lines = feature.canny(gray, 1.2, low_threshold=0.4 * strong, high_threshold=strong, mode="nearest")
    labels, _ = ndimage.label(lines, np.ones((3, 3)))
    long = np.bincount(labels.ravel())[labels] > 16
    expected = ndimage.maximum_filter((lines & long).astype(int), footprint=np.ones((2, 2)), origin=-1)
    source = made(facade, "edges")
    assert set(np.unique(source)) == {0, 255} and 0.05 < (source == 0).mean() < 0.4
    assert np.mean((source == 0) == (expected == 1)) > 0.999  # float32 against float64


def test_a_disc_becomes_its_outline() -> None:
    """Closed form: black within two pixels of the circle, all the way round, white elsewhere; in the dark, too."""
    y, x = np.mgrid[:64, :64] - 31.5
    radius = np.hypot(y, x)
    for inside, outside in ((200, 30), (12, 4)):
        source = made(np.where(radius < 20, inside, outside).astype(np.uint8), "edges")
        assert (source[np.abs(radius - 20) > 2.5] == 255).all()
        angle = np.degrees(np.arctan2(y, x)).round().astype(int)[source == 0]
        assert len(np.unique(angle // 10)) == 36


def test_nothing_is_drawn_where_nothing_is() -> None:
    assert (made(np.full((20, 30, 3), 77, np.uint8), "edges") == 255).all()
    assert (made(np.full((20, 30, 3), 77, np.uint8), "edges", style="pencil") == 255).all()


def test_a_pencil_shades_by_how_much_darker_a_pixel_is_than_its_surroundings(facade: np.ndarray) -> None:
    gray = np.asarray(Image.fromarray(facade).convert("L")).astype(float) + 16
    around = ndimage.gaussian_filter(gray, 3.0, mode="nearest")
    expected = np.minimum(gray / around, 1.0) ** 1.5 * 255
    source = made(facade, "edges", style="pencil")
    assert np.abs(source - expected).max() <= 0.51
    assert len(np.unique(source)) > 50 and source.mean() > 220, "shades, on white"


# ---------------------------------------------------------------------------------------------------- other kinds


def test_gray_is_bt601(facade: np.ndarray) -> None:
    expected = facade @ np.array([0.299, 0.587, 0.114])
    assert np.abs(made(facade, "gray") - expected).max() <= 0.51


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_lowres_has_the_means_of_squares(factor: int) -> None:
    """Of a picture that is constant but for noise within the squares: their mean, everywhere."""
    blocks = noise((5 * factor, 4 * factor)).reshape(5, factor, 4, factor).astype(int)
    photo = (blocks - blocks.mean((1, 3), keepdims=True) + 128).clip(0, 255).round().astype(np.uint8)
    photo = photo.reshape(5 * factor, 4 * factor)
    means = photo.reshape(5, factor, 4, factor).mean((1, 3))
    source = made(photo, "lowres", factor=factor).astype(float)
    assert np.abs(source.mean() - means.mean()) < 1.0 and source.std() < photo.std() / 3


def test_lowres_stays_in_place_where_its_factor_divides_no_side() -> None:
    """A ramp stays the ramp: means and cubic interpolation keep straight lines, away from the borders."""
    ramp = np.add.outer(np.arange(61), 2 * np.arange(47)).astype(np.uint8)
    source = made(ramp, "lowres", factor=4).astype(int)
    assert np.abs(source - ramp)[8:-8, 8:-8].max() <= 1


def test_lowres_is_compressed_and_noisy_where_that_is_wanted(facade: np.ndarray) -> None:
    buffer = io.BytesIO()
    small = Image.fromarray(facade).reduce(4)
    small.save(buffer, "JPEG", quality=10)
    large = Image.open(buffer).resize((128, 97), Image.Resampling.BICUBIC, (0, 0, 32, 97 / 4))
    assert np.array_equal(made(facade, "lowres", jpeg_quality=10), np.asarray(large))
    gray = np.full((400, 400), 128, np.uint8)
    assert made(gray, "lowres").std() == 0 < made(gray, "lowres", noise=20.0).std()


def test_blur_is_gaussian(facade: np.ndarray) -> None:
    """Pillow puts it together of boxes: within three levels of the bell curve, away from the borders."""
    expected = ndimage.gaussian_filter(facade.astype(float), (3.0, 3.0, 0), mode="nearest")
    difference = np.abs(made(facade, "blur", radius=3.0) - expected)[12:-12, 12:-12]
    assert difference.max() < 3 and difference.mean() < 0.8
    assert np.abs(expected - facade)[12:-12, 12:-12].mean() > 5


def test_noise_is_normal_and_follows_from_seed_and_pixels() -> None:
    photo = np.full((200, 200, 3), 128, np.uint8)
    first = made(photo, "noise", noise=20.0)
    difference = first.astype(float) - 128
    assert abs(difference.mean()) < 0.3 and abs(difference.std() - 20.0) < 0.3
    within = [(np.abs(difference) < 20.0 * k).mean() for k in (1, 2, 3)]
    assert np.abs(np.subtract(within, (0.683, 0.954, 0.997))).max() < 0.02
    assert np.array_equal(first, made(photo, "noise", noise=20.0))
    assert (first != made(photo, "noise", noise=20.0, seed=1)).mean() > 0.9
    assert (difference != made(photo + 1, "noise", noise=20.0) - 129.0).mean() > 0.9


def test_holes_are_marked_and_the_rest_is_the_photo(facade: np.ndarray) -> None:
    shares = []
    for seed in range(40):
        source = made(facade, "mask", seed=seed)
        hole = (source == HOLE).all(-1)
        assert np.array_equal(source[~hole], facade[~hole])
        shares.append(hole.mean())
    assert 0.01 < min(shares) < 0.15 < max(shares) < 0.8 and len(set(shares)) == 40


def test_a_palette_has_its_number_of_colours_each_pixel_near_its_own(facade: np.ndarray) -> None:
    source = made(facade, "palette", colors=6)
    colors = np.unique(source.reshape(-1, 3), axis=0)
    assert len(colors) == 6
    error = np.abs(source.astype(int) - facade).mean()
    nearest = np.abs(facade[:, :, None].astype(int) - colors).sum(-1).min(-1).mean() / 3
    assert nearest <= error < 1.5 * nearest


# ----------------------------------------------------------------------------------------- any photo, any options


@pytest.mark.parametrize("kind", MAKER_DEFAULTS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9, 3), (2, 2), (5, 3, 3), (40, 1, 3)])
def test_tiny_photos(kind: str, shape: tuple[int, ...]) -> None:
    made(noise(shape), kind)


def test_photos_become_gray_or_rgb_on_white_and_no_larger_than_wanted() -> None:
    pixels = noise((30, 40, 4))
    pixels[..., 3] = 0
    source, target = make_pair(Decoded(pixels, "rgba"), MakerOptions("gray", shorter_side=15), "x")
    assert target.values.shape == (15, 20, 3) and (target.values == 255).all() and (source.values == 255).all()
    _, target = make_pair(Decoded(noise((30, 40, 2)), "gray"), MakerOptions("blur", shorter_side=300), "x")
    assert target.kind == "gray" and target.values.shape == (30, 40, 1)


@pytest.mark.parametrize("values", [noise((4, 4), "uint16"), noise((4, 4, 3), "float32"), noise((4, 4, 5))])
def test_other_images_are_no_photos(values: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"dune\.tif is .* expected a photo: 8-bit"):
        make_pair(from_memory(values, "x"), MakerOptions("gray"), "dune.tif")


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("gray", {"colors": 3}, "--colors is of palette, and gray has no use for it"),
        ("edges", {"noise": 3.0}, "--noise is of lowres, noise, and edges has"),
        ("lowres", {"factor": 9}, "--factor 9 cannot work"),
        ("blur", {"radius": 1e9}, "--radius"),
        ("blur", {"radius": float("nan")}, "--radius"),
        ("noise", {"seed": -1}, "--seed -1"),
        ("oil", {}, "--kind 'oil' is unknown"),
        ([], {}, "--kind"),
        ("edges", {"style": "ink"}, "--style 'ink'"),
        ("gray", {"shorter_side": 10**9}, "--shorter-side"),
    ],
)
def test_options_that_cannot_work(kind: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        MakerOptions(kind, **options)
