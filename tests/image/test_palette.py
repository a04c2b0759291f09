"""The colours of label maps are found as they are, with loss and without; photos have none."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pair_folders import write_sides
from PIL import Image
from scipy.ndimage import gaussian_filter

from pix2pix_hub.config import PairOptions
from pix2pix_hub.data.pairs import load_pairs
from pix2pix_hub.image.format import PaletteColor, PixelFormat
from pix2pix_hub.image.palette import class_colors, color_sample
from pix2pix_hub.image.read import Decoded, from_memory

COLORS = [(0, 0, 170), (255, 85, 0), (128, 64, 128), (70, 130, 180), (0, 0, 0), (250, 170, 30), (107, 142, 35)]
SIZE = 192


def label_map(seed: int, colors: list = COLORS) -> NDArray[np.uint8]:
    """Rectangles on a ground of the first colour."""
    rng = np.random.default_rng(seed)
    image = np.full((SIZE, SIZE, 3), colors[0], np.uint8)
    for color in colors[1:] * 2:
        y, x, height, width = rng.integers([0, 0, 30, 30], [SIZE - 60, SIZE - 60, 60, 60])
        image[y : y + height, x : x + width] = color
    return image


def drawing(seed: int) -> NDArray[np.uint8]:
    """Black rectangles on white."""
    image = np.full((SIZE, SIZE, 3), 255, np.uint8)
    for y, x in np.random.default_rng(seed).integers(10, 100, (4, 2)):
        image[y : y + 60, x : x + 60] = 0
        image[y + 2 : y + 58, x + 2 : x + 58] = 255
    return image


def jpeg(image: NDArray[np.uint8], quality: int = 75) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def blurred(seed: int, sigma: float, mean: float, spread: float, channels: int = 3) -> NDArray[np.uint8]:
    """Smooth patches and a little noise, which is what photos are to this."""
    rng = np.random.default_rng(seed)
    pixels = gaussian_filter(rng.normal(size=(SIZE, SIZE, channels)), (sigma, sigma, 0))
    pixels = mean + spread * pixels / pixels.std() + rng.normal(size=pixels.shape)
    return np.broadcast_to(pixels, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)


def on_white(image: NDArray[np.uint8], margin: int) -> NDArray[np.uint8]:
    image = image.copy()
    image[:, :margin] = image[:, -margin:] = image[:margin] = image[-margin:] = 255
    return image


def found(images: list[NDArray[np.uint8]]) -> dict:
    return class_colors([color_sample(from_memory(image, "x"), labels=False) for image in images])


def test_without_loss_colours_and_shares_are_exact() -> None:
    image = np.zeros((33, 33, 3), np.uint8)
    image[:8], image[8:16, :16] = (1, 2, 3), (4, 4, 4)
    assert found([image]) == {
        (0, 0, 0): pytest.approx(1 - 8 * 32 / 1024 - 128 / 1024),
        (1, 2, 3): pytest.approx(8 * 32 / 1024),
        (4, 4, 4): pytest.approx(128 / 1024),
    }


@pytest.mark.parametrize("quality", [95, 75, 50])
def test_jpeg_noise_makes_no_colours_of_its_own(quality: int) -> None:
    colors = found([jpeg(label_map(seed), quality) for seed in range(12)])
    assert len(colors) == len(COLORS)
    for expected in COLORS:
        assert min(max(abs(a - b) for a, b in zip(expected, color, strict=True)) for color in colors) <= 4
    assert list(colors.values()) == sorted(colors.values(), reverse=True)


def test_drawings_without_loss_keep_all_their_colours_also_in_gray_files() -> None:
    colors = found([drawing(seed) for seed in range(8)])
    assert list(colors) == [(255, 255, 255), (0, 0, 0)] and colors[255, 255, 255] > 0.9
    assert found([drawing(0)[:, :, 0]]) == found([drawing(0)])
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[50:70, 50:70], image[50:70, 70:90] = 128, 255  # a small area between two grays
    assert set(found([image])) == {(0, 0, 0), (128, 128, 128), (255, 255, 255)}


PHOTOS: dict[str, Callable[[int], NDArray[np.uint8]]] = {
    "colours": lambda seed: blurred(seed, 6, 128, 50),
    "gray": lambda seed: blurred(seed, 6, 128, 50, channels=1),
    "dark": lambda seed: blurred(seed, 8, 10, 8, channels=1),
    "pale": lambda seed: blurred(seed, 8, 150, 8),
    "pale and gray": lambda seed: blurred(seed, 8, 150, 8, channels=1),
    "smooth, as depth maps are": lambda seed: blurred(seed, 40, 128, 50, channels=1),
    "a thing on white": lambda seed: on_white(blurred(seed, 12, 120, 50), 50),
    "a small rough thing on white": lambda seed: on_white(blurred(seed, 1, 120, 50, channels=1), 65),
    "a small bright thing on white": lambda seed: on_white(blurred(seed, 1, 120, 50), 65),
    "noise": lambda seed: np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8),
    "one colour": lambda seed: np.full((SIZE, SIZE, 3), 99, np.uint8),
}


@pytest.mark.parametrize("kind", PHOTOS)
def test_photos_have_none(kind: str) -> None:
    images = [PHOTOS[kind](seed) for seed in range(6)]
    assert found(images) == found([jpeg(image, 90) for image in images]) == {}


def test_deep_images_have_none() -> None:
    deep = Decoded(np.zeros((32, 32, 3), np.uint16), "rgb")
    assert color_sample(deep, labels=False) is None
    assert class_colors([None, None]) == {}


def test_labels_offer_every_class_in_its_colour(tmp_path: Path) -> None:
    values = np.zeros((33, 33), np.uint8)
    values[:16], values[16:17, :5] = 7, 9
    image = Image.fromarray(values)
    image.putpalette([number for index in range(256) for number in (index, 0, 255 - index)])
    write_sides(tmp_path, [image] * 4, [image] * 4)
    options = PairOptions(str(tmp_path), source_mode="labels", target_mode="labels", image_size="32")
    palette = load_pairs(options).formats["source"].palette
    assert [(entry.color, entry.name) for entry in palette] == [((v, 0, 255 - v), None) for v in (7, 0, 9)]
    assert [entry.share for entry in palette] == pytest.approx([0.5, (16 * 32 - 5) / 1024, 5 / 1024], abs=1e-3)


def test_it_survives_json_and_changes_nothing_else() -> None:
    bare = PixelFormat()
    full = PixelFormat(palette=(PaletteColor((1, 2, 3), "door", 0.25), PaletteColor((0, 0, 0), None, 0.75)))
    content = full.to_dict()
    assert content["palette"][0] == {"color": (1, 2, 3), "name": "door", "share": 0.25}
    assert PixelFormat.from_dict(content).palette == full.palette
    assert "palette" not in bare.to_dict() and PixelFormat.from_dict(bare.to_dict()).palette == ()
    assert full == bare
