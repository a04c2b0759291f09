"""Properties of the embedded façades: reproducible, cleanly labelled, and a photo that follows its label map."""

import hashlib
import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from pix2pix_hub.synthetic import CMP_CLASSES, DEFAULT_SEED, render_pair

PALETTE = np.array(list(CMP_CLASSES.values()), dtype=np.int64)
NAMES = list(CMP_CLASSES)


def arrays(index, size=(128, 128), seed=DEFAULT_SEED):
    """Class indices (H, W) and photo (H, W, 3) in [0, 1]."""
    source, target = (np.asarray(image, dtype=np.int64) for image in render_pair(index, size, seed))
    distance = np.abs(source[:, :, None] - PALETTE).sum(-1)
    assert (distance.min(-1) == 0).all(), "the label map holds a colour that is no class colour"
    return distance.argmin(-1), target / 255


def explained_variance(labels, photo):
    """Share of the variance of `photo` that its class means explain: 1 = flat parts, 0 = labels say nothing."""
    residual = photo.copy()
    for label in np.unique(labels):
        residual[labels == label] -= photo[labels == label].mean(0)
    return 1 - (residual**2).mean() / photo.var(axis=(0, 1)).mean()


@pytest.fixture(scope="module")
def class_means():
    """Mean photo colour of every class over 60 façades, (12, 3)."""
    pairs = [arrays(i) for i in range(60)]
    labels, photos = np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])
    return np.stack([photos[labels == k].mean(0) for k in range(len(NAMES))])


def test_the_palette_has_twelve_distinct_colours():
    assert len(CMP_CLASSES) == len(set(CMP_CLASSES.values())) == 12


def test_another_process_draws_the_same_bytes():
    code = (
        "import hashlib; from pix2pix_hub.synthetic import render_pair\n"
        "images = [im for i in (0, 7, 23) for im in render_pair(i, (48, 80), seed=5)]\n"
        "print(hashlib.sha256(b''.join(im.tobytes() for im in images)).hexdigest())"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONHASHSEED": "123"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    images = [image for i in (0, 7, 23) for image in render_pair(i, (48, 80), seed=5)]
    assert other.stdout.strip() == hashlib.sha256(b"".join(im.tobytes() for im in images)).hexdigest()


def test_the_order_of_calls_does_not_matter():
    first = arrays(3)[1]
    render_pair(4)
    assert np.array_equal(arrays(3)[1], first)


@pytest.mark.parametrize("size", [(16, 16), (16, 200), (200, 16), (48, 80), (77, 51), (128, 128), (256, 256)])
def test_every_size_gives_clean_labels_and_a_photo_of_that_size(size):
    for index in range(8):
        source, target = render_pair(index, size)
        assert source.mode == target.mode == "RGB"
        assert source.size == target.size == size[::-1]
        labels, photo = arrays(index, size)
        assert len(np.unique(labels)) >= 4
        assert photo.std() > 0.1


@pytest.mark.parametrize("size", [(15, 64), (64, 15), (0, 0)])
def test_a_size_below_16_is_refused_with_advice(size):
    with pytest.raises(ValueError, match=rf"size is {size[0]}x{size[1]}.*at least 16x16.*size=\(128, 128\)"):
        render_pair(0, size)


def test_each_class_occurs_regularly():
    n_with = dict.fromkeys(NAMES, 0)
    for index in range(60):
        for label in np.unique(arrays(index)[0]):
            n_with[NAMES[label]] += 1
    rare = {name: n for name, n in n_with.items() if n < 12}
    assert not rare, f"of 60 façades only so many have these classes: {rare}"


@pytest.mark.parametrize("index", range(6))
def test_another_size_shows_the_same_facade(index):
    large, large_photo = arrays(index, (256, 256))
    small, small_photo = arrays(index, (64, 128))
    agreement = (large[2::4, 1::2] == small).mean()
    assert agreement > 0.88
    assert agreement > (large[2::4, 1::2] == arrays(index + 1, (64, 128))[0]).mean() + 0.1
    shrunk = large_photo.reshape(64, 4, 128, 2, 3).mean((1, 3))
    assert np.abs(shrunk - small_photo).mean() < 0.08


def test_indices_and_seeds_draw_different_facades():
    drawn = {render_pair(i, (64, 64), seed)[k].tobytes() for i in range(20) for seed in (0, 1) for k in (0, 1)}
    assert len(drawn) == 80


def test_windows_are_darker_and_bluer_than_walls(class_means):
    window, wall = class_means[NAMES.index("window")], class_means[NAMES.index("facade")]
    assert window.mean() < wall.mean() - 0.1
    assert window[2] - window[0] > 0.05
    assert wall[2] - wall[0] < -0.05


def test_every_class_has_a_look_of_its_own(class_means):
    distance = {
        (NAMES[a], NAMES[b]): np.abs(class_means[a] - class_means[b]).max()
        for a, b in combinations(range(len(NAMES)), 2)
    }
    alike = {pair: round(d, 3) for pair, d in distance.items() if d < 0.03}
    assert not alike, f"mean colours too close: {alike}"


def test_a_photo_follows_its_own_label_map_and_no_other():
    pairs = [arrays(i) for i in range(24)]
    own = np.array([explained_variance(labels, photo) for labels, photo in pairs])
    shuffled = np.array([explained_variance(pairs[i - 1][0], photo) for i, (_, photo) in enumerate(pairs)])
    assert own.mean() > 0.35
    assert (own > shuffled + 0.05).mean() > 0.9


@pytest.mark.parametrize("shift", [(2, 0), (-2, 0), (0, 2), (0, -2)])
def test_moving_the_photo_by_two_pixels_breaks_the_fit(shift):
    for index in range(10):
        labels, photo = arrays(index)
        assert explained_variance(labels, photo) > explained_variance(labels, np.roll(photo, shift, (0, 1)))


def test_one_class_looks_alike_on_all_facades():
    """What cannot be known from the labels stays small, or the best guess of a network would be mud."""
    glass = np.stack([photo[labels == NAMES.index("window")].mean(0) for labels, photo in map(arrays, range(30))])
    walls = np.stack([photo[labels == NAMES.index("facade")].mean(0) for labels, photo in map(arrays, range(30))])
    assert glass.std(0).max() < 0.06
    assert walls.std(0).max() < 0.15
