"""Sources made from photos: each kind against another way to compute it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import feature, filters, measure, morphology
from tiny_exports import noise

from pix2pix_hub.config import MAKER_DEFAULTS, MakerOptions
from pix2pix_hub.image.maker import HOLE, make_pair
from pix2pix_hub.image.read import Decoded, from_memory
from pix2pix_hub.synthetic import render_pair
from pix2pix_hub.util import UserError


def made(photo: np.ndarray | Image.Image, *kind: str, **options: object) -> np.ndarray:
    """The source as `(H, W)` or `(H, W, 3)`, of the photo's size."""
    source, target = make_pair(from_memory(photo, "photo"), MakerOptions(*kind, **options), "photo")
    assert np.array_equal(np.asarray(target.picture()), np.asarray(photo))
    assert source.size == target.size
    return np.asarray(source.picture())


@pytest.fixture(scope="module")
def facade() -> np.ndarray:
    return np.asarray(render_pair(3, (97, 128))[1])


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
