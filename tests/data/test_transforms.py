"""Pairs stay registered, no corner is invented, and a sample depends on (seed, epoch, index) alone."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from pix2pix_hub.data.order import EpochSampler, ProcessBatches
from pix2pix_hub.data.transforms import PairTensors, PairTransform, inscribed_margins
from pix2pix_hub.image.format import RGB, PixelFormat, from_model_range, to_model_range
from pix2pix_hub.util import UserError

ALL = {"flip_probability": 0.5, "rotation_degrees": 10.0, "jitter_scale": 286 / 256}
GEOMETRIES = {
    "flip": {"flip_probability": 1.0, "jitter_scale": 1.0},
    "rotation": {"flip_probability": 0.0, "jitter_scale": 1.0, "rotation_degrees": 45.0},
    "jitter": {"flip_probability": 0.0, "jitter_scale": 1.4},
    "all": ALL,
}


def blob(height: int, width: int, y: float, x: float, channels: int = 3, sigma: float = 0.03) -> Tensor:
    """A bright Gaussian spot on black at relative position (y, x), uint8 `(C, H, W)`."""
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    spot = torch.exp(-((rows[:, None] - y) ** 2 + (columns[None] - x) ** 2) / (2 * sigma**2))
    return (255 * spot).round().to(torch.uint8).expand(channels, -1, -1)


def centroid(image: Tensor) -> tuple[float, float]:
    """Row and column of the centre of mass of a [-1, 1] image's first channel, in pixels."""
    mass = image[0].double() + 1
    rows, columns = torch.arange(mass.shape[0]) + 0.5, torch.arange(mass.shape[1]) + 0.5
    return float((mass.sum(1) * rows).sum() / mass.sum()), float((mass.sum(0) * columns).sum() / mass.sum())


def noise(channels: int = 3, height: int = 24, width: int = 24, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (channels, height, width), np.uint8))


def seen(image: Tensor, size: tuple[int, int] = (24, 24), *, index: int = 0, **options: Any) -> dict[str, Tensor]:
    """What networks see of an image as source and as target."""
    return PairTransform(size, **{"augment": True} | options)(image, image.clone(), epoch=0, index=index)


def differ(a: dict[str, Tensor], b: dict[str, Tensor], side: str = "source") -> bool:
    return not torch.equal(a[side], b[side])


# ------------------------------------------------------------------------------------------------ registration


@pytest.mark.parametrize("options", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_a_marker_lands_on_the_same_pixel_in_source_and_target(options: dict[str, float]) -> None:
    places = set()
    for index in range(30):
        pair = seen(blob(110, 140, 0.55, 0.4), (96, 128), index=index, **options)
        assert torch.equal(pair["source"], pair["target"])
        places.add(tuple(round(c, 1) for c in centroid(pair["source"])))
    assert len(places) == 1 if options is GEOMETRIES["flip"] else len(places) > 20  # it really moves


def test_a_marker_lands_on_the_same_pixel_when_stored_sizes_and_channels_differ() -> None:
    transform = PairTransform((96, 96), augment=True, **ALL)
    for index in range(30):
        pair = transform(blob(120, 120, 0.6, 0.45), blob(180, 240, 0.6, 0.45, channels=1), epoch=1, index=index)
        assert pair["source"].shape == (3, 96, 96) and pair["target"].shape == (1, 96, 96)
        assert centroid(pair["source"]) == pytest.approx(centroid(pair["target"]), abs=0.15)


def test_flip_mirrors_exactly_and_jitter_one_crops_nothing() -> None:
    plain = seen(noise(), augment=False)["source"]
    assert torch.equal(seen(noise(), flip_probability=1.0, jitter_scale=1.0)["source"], plain.flip(-1))
    assert torch.equal(seen(noise(), flip_probability=0.0, jitter_scale=1.0)["source"], plain)


def test_flips_about_half_of_the_pairs() -> None:
    marker = blob(8, 8, 0.5, 0.2, sigma=0.1)
    flipped = sum(centroid(seen(marker, (8, 8), index=i, jitter_scale=1.0)["source"])[1] > 4 for i in range(400))
    assert 160 < flipped < 240  # 4 standard deviations


# -------------------------------------------------------------------------------------------- no invented corners


@pytest.mark.parametrize("size", [(64, 64), (33, 65), (40, 21), (3, 5), (2, 2), (1, 9)])
@pytest.mark.parametrize("degrees", [3.0, 10.0, 45.0])
def test_a_constant_image_stays_constant_everywhere(size: tuple[int, int], degrees: float) -> None:
    image = torch.full((3, *size), 200, dtype=torch.uint8)
    for index in range(25):
        pair = seen(image, (32, 32), index=index, rotation_degrees=degrees)
        assert torch.all((pair["source"] - (200 / 127.5 - 1)).abs() < 1e-6)


@settings(max_examples=200)
@given(st.integers(2, 400), st.integers(2, 400), st.floats(-45, 45))
def test_inscribed_rectangle_is_inside_and_the_largest(height: int, width: int, degrees: float) -> None:
    def inside(top: float, left: float, slack: float) -> bool:
        """Rotate the remaining corner pixels back and see whether they lie among the stored pixel centres."""
        half = np.array([(width - 1) / 2 - left, (height - 1) / 2 - top])
        angle = math.radians(degrees)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        corners = np.abs(turn @ np.stack([half, half * [1, -1]], axis=1))
        return bool((corners <= np.array([[(width - 1) / 2], [(height - 1) / 2]]) + slack).all())

    top, left = inscribed_margins(height, width, degrees)
    assert top >= 0 and left >= 0
    if 2 * top < height and 2 * left < width:
        assert inside(top, left, slack=1e-5)
    # a rectangle of the stored ratio that is one whole pixel wider on each side would leave the image
    assert (top, left) == (0, 0) or not inside(max(top - 1, 0), max(left - 1, 0), slack=-1e-5)


# -------------------------------------------------------------------------------------------------- determinism


def test_a_sample_depends_on_seed_epoch_and_index_alone() -> None:
    image = noise()

    def sample(seed: int, epoch: int, index: int) -> dict[str, Tensor]:
        return PairTransform((24, 24), augment=True, seed=seed, **ALL)(image, image, epoch=epoch, index=index)

    first = sample(1, 2, 3)
    torch.manual_seed(99)
    sample(5, 5, 5)
    assert not differ(first, sample(1, 2, 3))
    assert all(differ(first, sample(*key)) for key in [(0, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2), (2, 1, 3)])


def test_no_global_random_state_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the accelerator's: `torch.manual_seed` would, and so make dropout repeat itself in a run without workers."""

    def states() -> tuple[bytes, bytes, str]:
        legacy = np.random.get_state()  # noqa: NPY002 the global state is what must not move
        return torch.get_rng_state().numpy().tobytes(), repr(legacy).encode(), repr(random.getstate())

    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the accelerator was reseeded"))
    before = states()
    seen(noise(), (16, 16), color_jitter=0.2, **ALL)
    assert states() == before


class Numbered:
    """Pairs whose content tells their index."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return noise(seed=index), noise(channels=1, height=30, seed=100 + index)  # of another size


def epoch_of_samples(epoch: int, **loader: Any) -> dict[int, tuple[Tensor, Tensor]]:
    sampler = EpochSampler(11, seed=3)
    sampler.set_epoch(epoch)
    dataset = PairTensors(Numbered(), PairTransform((16, 16), augment=True, color_jitter=0.2, seed=7, **ALL))
    batches = list(DataLoader(dataset, batch_size=4, sampler=sampler, **loader))
    assert sum(len(batch["index"]) for batch in batches) == 11
    return {int(i): (s, t) for b in batches for i, s, t in zip(b["index"], b["source"], b["target"], strict=True)}


def test_workers_change_nothing_and_learn_the_epoch() -> None:
    here, there, later = epoch_of_samples(1), epoch_of_samples(1, num_workers=2), epoch_of_samples(2, num_workers=2)
    assert set(here) == set(there) == set(range(11))
    assert all(torch.equal(a, b) for i in here for a, b in zip(here[i], there[i], strict=True))
    assert all(not torch.equal(there[i][0], later[i][0]) for i in there)


# --------------------------------------------------------------------------------------------------- colour jitter


@pytest.mark.parametrize(
    ("side", "changed"), [("source", {"source"}), ("target", {"target"}), ("both", {"source", "target"})]
)
def test_colour_jitter_touches_only_the_side_named_and_no_geometry(side: str, changed: set[str]) -> None:
    for index in range(5):
        plain, coloured = (
            seen(noise(), index=index, color_jitter=strength, color_jitter_side=side, **ALL) for strength in (0, 0.5)
        )
        assert {name for name in ("source", "target") if differ(plain, coloured, name)} == changed
        assert torch.equal(coloured["source"], coloured["target"]) == (side == "both")  # the same change


@pytest.mark.parametrize("stored", [PixelFormat("channels", 4), PixelFormat("labels", 3, classes=(0, 1, 2))])
def test_colour_jitter_refuses_images_without_colours_and_names_the_flag(stored: PixelFormat) -> None:
    with pytest.raises(UserError, match="source images (are labels|have 4 channels).*--color-jitter 0"):
        PairTransform((24, 24), augment=True, color_jitter=0.2, formats={"source": stored, "target": RGB})
    PairTransform((24, 24), augment=True, color_jitter=0.2, formats={"source": RGB, "target": stored})  # left alone


def test_evaluation_ignores_colour_jitter() -> None:
    assert not differ(*(seen(noise(4), augment=False, color_jitter=strength) for strength in (0.0, 0.5)))


# ------------------------------------------------------------------------------------------- what the networks see


def test_evaluation_keeps_pixels_that_fit_and_leaves_the_stored_ones_alone() -> None:
    image = noise()
    pair = PairTransform((24, 24), augment=False)(image, image, epoch=0, index=0)
    np.testing.assert_allclose(pair["source"].numpy(), image.numpy() / 127.5 - 1, atol=1e-6)
    assert torch.equal(image, noise())


def test_shrinking_is_antialiased() -> None:
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(24).expand(3, 48, 48)
    for augment in (True, False):
        pair = seen(stripes, (16, 16), augment=augment, flip_probability=0.0, jitter_scale=1.0)
        assert pair["source"].abs().max() < 0.15  # gray; without antialiasing black or white


def test_pair_tensors_take_an_index_or_epoch_and_index() -> None:
    dataset = PairTensors(Numbered(), PairTransform((16, 16), augment=True, **ALL))
    assert len(dataset) == 11
    assert dataset[4]["index"] == dataset[0, 4]["index"] == dataset[9, 4]["index"] == 4
    assert not differ(dataset[4], dataset[0, 4]) and differ(dataset[4], dataset[9, 4])


# ------------------------------------------------------------------------------------------------- aspect ratios


def cells(height: int, width: int) -> Tensor:
    """An image in which each pixel tells its place: row in the first channel, column in the second."""
    rows, columns = torch.arange(height), torch.arange(width)
    return torch.stack([rows[:, None].expand(height, width), columns.expand(height, width)]).to(torch.uint8)


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_crop_and_pad_keep_circles_round(resize: str, augment: bool) -> None:
    spot = blob(90, 120, 0.5, 0.5, sigma=0.08)  # a third wider than high in pixels, as the image is
    image = seen(spot, (64, 64), augment=augment, resize=resize, flip_probability=0.0, jitter_scale=1.1)["source"]
    mass = image[0].double() + 1
    rows, columns = centroid(image)
    spread = [
        float(((torch.arange(64) + 0.5 - centre) ** 2 * mass.sum(1 - axis)).sum() / mass.sum())
        for axis, centre in ((0, rows), (1, columns))
    ]
    assert spread[1] / spread[0] == pytest.approx(16 / 9, rel=0.05)  # exact would give 1


def test_crop_cuts_evenly_when_evaluating_and_at_random_when_training() -> None:
    image = cells(16, 40)
    still = seen(image, (16, 16), augment=False, resize="crop")["source"]
    np.testing.assert_allclose(still.numpy(), to_model_range(image[:, :, 12:28]).numpy())
    options = {"resize": "crop", "flip_probability": 0.0, "jitter_scale": 1.0}
    moving = [seen(image, (16, 16), index=index, **options)["source"][1, 0, 0] for index in range(60)]
    starts = {round(float((start + 1) * 127.5)) for start in moving}
    assert len(starts) > 15 and min(starts) >= 0 and max(starts) <= 24


def test_pad_reflects_and_then_repeats_the_border() -> None:
    padded = seen(cells(16, 4), (16, 16), augment=False, resize="pad")["source"]
    columns = ((padded[1, 0] + 1) * 127.5).round().int().tolist()
    assert columns == [3, 3, 3, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 0, 0, 0]


# ---------------------------------------------------------------------------------------------------- native crops


@pytest.mark.parametrize(
    ("stored", "cycle"), [((64, 90), 35), ((33, 50), 20), ((16, 16), 1), ((17, 16), 3), ((16, 48), 4), ((100, 100), 64)]
)
def test_native_crops_are_the_stored_pixels_and_in_a_cycle_of_epochs_every_one_is_drawn(
    stored: tuple[int, int], cycle: int
) -> None:
    """Of each pair, by itself, from the first epoch on and in later cycles; counted for each pixel."""
    image = cells(*stored)
    places = set()
    for index in range(4):
        for start in (0, cycle, 5 * cycle):
            counts = np.zeros(stored, int)
            for epoch in range(start, start + cycle):
                transform = PairTransform((16, 16), augment=True, resize="native", seed=3)
                pair = transform(image, image.clone(), epoch=epoch, index=index)
                assert torch.equal(pair["source"], pair["target"])
                rows, columns = ((plane + 1) * 127.5 for plane in pair["source"].round(decimals=5))
                top, left = (int(plane.min().round()) for plane in (rows, columns))
                crop = to_model_range(image[:, top : top + 16, left : left + 16])
                assert torch.allclose(pair["source"], crop) or torch.allclose(pair["source"].flip(-1), crop)
                counts[top : top + 16, left : left + 16] += 1
                places.add((top, left))
            assert counts.min() >= 1
    assert (len(places) > 1.5 * cycle) == (cycle > 3)  # and they are not always the same


def test_native_crops_do_not_depend_on_processes_and_workers() -> None:
    def epoch_of(processes: int, workers: int) -> dict[int, Tensor]:
        found = {}
        for process in range(processes):
            sampler = EpochSampler(11, seed=3)
            sampler.set_epoch(4)
            dataset = PairTensors(Numbered(), PairTransform((16, 16), augment=True, resize="native", seed=7))
            batches = ProcessBatches(sampler, 2, processes, process)
            for batch in DataLoader(dataset, batch_sampler=batches, num_workers=workers):
                found |= {int(index): image for index, image in zip(batch["index"], batch["source"], strict=True)}
        return found

    expected = epoch_of(1, 0)
    assert set(expected) == set(range(11))
    for found in (epoch_of(3, 0), epoch_of(2, 1)):
        assert all(torch.equal(found[index], image) for index, image in expected.items())


def test_native_crops_without_augmentation_stay_where_they_are() -> None:
    image = cells(64, 90)
    transform = PairTransform((16, 16), augment=False, resize="native")
    first, later, other = (
        transform(image, image, epoch=epoch, index=index) for epoch, index in ((0, 1), (7, 1), (0, 2))
    )
    assert not differ(first, later) and differ(first, other)


@settings(max_examples=200)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from([(32, 32), (16, 48), (48, 16)]),
    st.sampled_from(["exact", "crop", "pad"]),
    st.booleans(),
    st.sampled_from(["uint8", "uint16", "float32", "labels"]),
    st.sampled_from([1, 2, 3, 4, 13]),
)
def test_any_size_and_any_pixels_come_out_right(
    stored: tuple[int, int], size: tuple[int, int], resize: str, augment: bool, kind: str, channels: int
) -> None:
    rng, shape = np.random.default_rng(stored), (channels, *stored)
    pixels, image = {
        "uint8": (PixelFormat("channels", channels), rng.choice([0, 255], shape)),
        "uint16": (PixelFormat("channels", channels, "uint16", 0.0, 65535.0), rng.integers(0, 65536, shape)),
        "float32": (PixelFormat("channels", channels, "float32", -3.0, 5.0), rng.uniform(-3, 5, shape)),
        "labels": (PixelFormat("labels", 3, classes=(0, 7, 255)), rng.choice([0, 7, 255], (1, *stored))),
    }[kind]
    values = torch.from_numpy(image.astype(np.uint8 if kind in ("uint8", "labels") else np.float32))
    options = ALL if augment else {}
    both = dict.fromkeys(("source", "target"), pixels)
    pair = seen(values, size, augment=augment, resize=resize, formats=both, seed=sum(stored), **options)
    assert pair.keys() == both.keys() and torch.equal(pair["source"], pair["target"])
    for found in pair.values():
        assert type(found) is Tensor and found.dtype == torch.float32 and (kind == "labels" or found.is_contiguous())
        assert found.shape == (pixels.channels, *size)
        assert found.min() >= -1 - 1e-6 and found.max() <= 1 + 1e-6
        if kind == "labels":
            assert set(found.unique().tolist()) <= {-1, 1} and (found.sum(0) == -1).all()


def test_deep_pixels_that_fit_are_kept_exactly() -> None:
    deep = PixelFormat("gray", 1, "uint16", 0.0, 65535.0)
    image = torch.arange(65536, dtype=torch.float32).view(1, 256, 256)
    scaled = seen(image, (256, 256), augment=False, formats={"source": deep, "target": deep})["source"]
    np.testing.assert_array_equal(from_model_range(scaled, deep).numpy().ravel(), np.arange(65536))


@pytest.mark.parametrize("stored", [RGB, PixelFormat("gray", 1, "uint16", 0.0, 65535.0)])
def test_a_pair_takes_the_bytes_that_are_said(stored: PixelFormat) -> None:
    formats = {"source": PixelFormat("labels", 2, classes=(0, 3)), "target": stored}
    transform = PairTransform((16, 24), augment=True, formats=formats)
    images = transform.prepare(torch.zeros(1, 20, 20, dtype=torch.uint8), torch.zeros(stored.channels, 20, 20).byte())
    assert transform.nbytes == sum(image.nbytes for image in transform.vary(*images, epoch=0, index=0).values())


def test_unknown_labels_are_named() -> None:
    with pytest.raises(UserError, match=r"labels \[9\] are none of the classes \[0, 1\]"):
        to_model_range(torch.tensor([[[0, 9]]], dtype=torch.uint8), PixelFormat("labels", 2, classes=(0, 1)))
