"""Kept pairs are the very pairs that decoding gives, from memory and from disk, and never those of another set."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pair_folders import write_sides
from PIL import Image
from torch.utils.data import default_collate

from pix2pix_hub.config import PairOptions
from pix2pix_hub.data.cache import (
    CacheOverflow,
    CachePlan,
    DevicePairs,
    KeepWhileLooking,
    PairCache,
    PairWriter,
    disk_folder,
    estimated_bytes,
    keep_on_disk,
)
from pix2pix_hub.data.decode import PairDataset
from pix2pix_hub.data.pairs import PairSplits, load_pairs
from pix2pix_hub.data.tools import build_pairs, write_dataset
from pix2pix_hub.data.transforms import PairTensors, PairTransform

pytestmark = pytest.mark.usefixtures("datasets_cache")
ROOM = 10**9
PLAIN = PairTransform((32, 32), augment=False)
DRAWS: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "labels": lambda random, side: random.integers(0, 3, (side, side, 1)).astype(np.uint8),
    "float": lambda random, side: random.normal(size=(side, side, 2)).astype(np.float32),
    "bytes": lambda random, side: random.integers(0, 256, (side, side, 3)).astype(np.uint8),
    "sixteen": lambda random, side: random.integers(0, 65536, (side, side, 3)).astype(np.uint16),
}


def write_pairs(root: Path, *kinds: str) -> Path:
    """Six pairs of several sizes."""
    sides = ([DRAWS[kind](np.random.default_rng([37, index]), 37 + 4 * index) for index in range(6)] for kind in kinds)
    return write_sides(root, *sides)


def open_pairs(root: Path, labels: bool = False) -> PairDataset:
    return load_pairs(PairOptions(str(root), source_mode="labels" if labels else "auto")).train


def keep_in_memory(pairs: PairDataset, transform: PairTransform, limit: int) -> PairCache:
    return PairWriter(limit).write_all(pairs, transform)


@pytest.fixture
def pairs(tmp_path: Path) -> PairDataset:
    return open_pairs(write_pairs(tmp_path / "pairs", "bytes", "bytes"))


TRANSFORMS: dict[str, dict[str, Any]] = {
    "cropped": dict(augment=True),
    "rotated": dict(augment=True, rotation_degrees=10.0, resize="pad"),
    "covered": dict(augment=True, resize="crop", jitter_scale=1.3),
    "evaluated": dict(augment=False),
}


@pytest.mark.parametrize("keep", [keep_in_memory, keep_on_disk])
@pytest.mark.parametrize("how", TRANSFORMS)
@pytest.mark.parametrize(("source", "target"), [("bytes", "bytes"), ("labels", "sixteen"), ("float", "bytes")])
def test_every_epoch_is_bitwise_the_one_without_a_cache(
    source: str, target: str, how: str, keep: Callable[..., PairCache], tmp_path: Path
) -> None:
    pairs = open_pairs(write_pairs(tmp_path / "pairs", source, target), labels=source == "labels")
    transform = PairTransform((32, 32), formats=pairs.formats, **TRANSFORMS[how])
    plain, kept = PairTensors(pairs, transform), PairTensors(pairs, transform)
    kept.prepared = keep(pairs, transform, ROOM)
    for key in [(0, 0), (0, 1), (1, 1), (2, len(pairs) - 1)]:
        expected, got = plain[key], kept[key]
        assert all(torch.equal(expected[side], got[side]) for side in ("source", "target"))
    assert not torch.equal(kept[0, 1]["source"], kept[0, 2]["source"])


@pytest.mark.parametrize("how", [{}, {"resize": "crop", "jitter_scale": 1.0}, {"flip_probability": 1.0}])
@pytest.mark.parametrize(("source", "target"), [("bytes", "bytes"), ("labels", "sixteen"), ("float", "bytes")])
def test_batches_cut_out_on_a_device_are_bitwise_those_of_single_pairs(
    source: str, target: str, how: dict[str, Any], tmp_path: Path
) -> None:
    pairs = open_pairs(write_pairs(tmp_path / "pairs", source, target), labels=source == "labels")
    transform = PairTransform((32, 40), augment=True, formats=pairs.formats, seed=3, **how)
    plain, cpu = PairTensors(pairs, transform), torch.device("cpu")
    kept = DevicePairs(keep_in_memory(pairs, transform, ROOM), transform, cpu)
    for keys in ([(epoch, index) for epoch in range(3) for index in (4, 1, 0, 3)], [(7, 2)]):
        batch, expected = kept.batch(keys), default_collate([plain[key] for key in keys])
        assert torch.equal(batch["index"], expected["index"])
        for side, images in transform.to_model_range(batch).items():
            assert torch.equal(images, expected[side])
            assert images.is_contiguous()
    assert DevicePairs.where_they_fit(plain, cpu) is None


@pytest.mark.parametrize(
    ("options", "only_crops"),
    [({}, True), ({"augment": False}, False), ({"rotation_degrees": 5.0}, False), ({"color_jitter": 0.1}, False)],
)
def test_what_computes_pixels_is_not_left_to_the_device(options: dict[str, Any], only_crops: bool) -> None:
    assert PairTransform((32, 32), **{"augment": True} | options).only_crops == only_crops


def test_what_is_estimated_is_taken_and_other_processes_are_handed_a_path(pairs: PairDataset) -> None:
    transform = PairTransform((256, 256), augment=False)
    cache = keep_in_memory(pairs, transform, ROOM)
    assert cache.nbytes == estimated_bytes(pairs, transform) == len(pairs) * 2 * 3 * 256 * 256
    handed = pickle.dumps(cache)
    assert len(handed) < 5000
    assert torch.equal(pickle.loads(handed)[3][1], cache[3][1])


def test_memory_is_given_back_with_the_cache(pairs: PairDataset) -> None:
    def held() -> list[str]:
        gc.collect()
        descriptors = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        links = [os.readlink(path) for path in descriptors if os.path.islink(path)]
        return [name for name in links if "pix2pix_pairs" in name]

    cache = keep_in_memory(pairs, PLAIN, ROOM)
    assert held()
    del cache
    assert not held()
    with pytest.raises(CacheOverflow):
        keep_in_memory(pairs, PLAIN, 1000)
    assert not held()


def test_a_cache_on_disk_is_found_again_by_the_same_set_alone(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "pairs", "bytes", "bytes")
    transform = PairTransform((32, 32), augment=True)
    first = Path(keep_on_disk(open_pairs(root), transform, ROOM).path)
    written = first.stat().st_mtime_ns
    assert keep_on_disk(open_pairs(root), transform, ROOM).path == str(first)
    assert first.stat().st_mtime_ns == written
    options = [dict(image_size=(64, 64)), dict(rotation_degrees=1.0), dict(augment=False)]
    others = [PairTransform(**{"image_size": (32, 32), "augment": True} | one) for one in options]
    assert len({first.parent, *(disk_folder(open_pairs(root), other) for other in others)}) == 4
    same = PairTransform((32, 32), augment=True, color_jitter=0.5, seed=9)
    assert disk_folder(open_pairs(root), same) == first.parent


def test_an_image_changed_since_is_never_taken_from_the_disk(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "pairs", "bytes", "bytes")
    before = open_pairs(root)
    stale = keep_on_disk(before, PLAIN, ROOM)
    name = root / "A" / Path(before.name(0)).name
    np.save(name, np.zeros_like(np.load(name)))  # of the same size
    os.utime(name, ns=(1, 1))
    fresh = keep_on_disk(open_pairs(root), PLAIN, ROOM)
    assert fresh.path != stale.path
    assert stale[0][0].any() and not fresh[0][0].any()


def test_a_table_that_was_written_anew_is_another_set(tmp_path: Path) -> None:
    """Its bytes are in its rows, not in files."""
    folders = []
    for shade in (10, 200):
        sides = ([Image.new("RGB", (32, 32), (shade, side, index)) for index in range(6)] for side in range(2))
        root = write_sides(tmp_path / f"{shade}" / "images", *sides)
        write_dataset(build_pairs(PairOptions(str(root)), "set"), tmp_path / f"set{shade}")
        once, again = (disk_folder(open_pairs(tmp_path / f"set{shade}"), PLAIN) for _ in range(2))
        assert once == again
        folders.append(once)
    assert folders[0] != folders[1]


def test_what_does_not_fit_leaves_nothing_on_disk(pairs: PairDataset, datasets_cache: Path) -> None:
    with pytest.raises(CacheOverflow):
        keep_on_disk(pairs, PLAIN, 1000)
    assert not [path for path in datasets_cache.rglob("*.bin") if path.stat().st_size]


def keep_while_looking(root: Path, limit: int = ROOM) -> tuple[PairSplits, KeepWhileLooking]:
    def keep(parts: Sequence[PairDataset]) -> KeepWhileLooking:
        transforms = [PairTransform((32, 32), augment=True, formats=part.formats) for part in parts]
        return KeepWhileLooking(CachePlan("memory", "", limit), list(zip(parts, transforms, strict=True)))

    pairs = load_pairs(PairOptions(str(root), image_size="32", on_bad_pair="skip"), keep=keep)
    assert pairs.keeper is not None
    return pairs, pairs.keeper


def test_what_is_kept_while_looking_is_what_decoding_gives(tmp_path: Path) -> None:
    """Also where bad pairs are among them, and nothing where there is no room."""
    root = write_pairs(tmp_path / "pairs", "bytes", "bytes")
    np.save(root / "A" / "3.npy", DRAWS["float"](np.random.default_rng(3), 49))
    (root / "B" / "5.npy").write_bytes(b"torn")
    pairs, keeper = keep_while_looking(root)
    assert len(pairs.findings.faults) == 2
    assert all(kept is part for (kept, _), part in zip(keeper.kept, (pairs.train, pairs.validation), strict=True))
    for (part, cache), (_, transform) in zip(keeper.kept, keeper.parts, strict=True):
        assert len(cache) == len(part) > 0
        expected = [transform.prepare(*pair) for pair in part]
        assert all(torch.equal(*both) for k, pair in enumerate(expected) for both in zip(cache[k], pair, strict=True))
        assert cache.nbytes == sum(image.nbytes for pair in expected for image in pair)
    assert not keep_while_looking(root, limit=10_000)[1].kept


def test_nothing_is_kept_of_pixels_that_the_first_pairs_did_not_have(tmp_path: Path) -> None:
    """The first eight images are gray, which makes gray of all of them until another is seen."""
    images = [Image.new("RGB" if index > 15 else "L", (32, 32), index) for index in range(20)]
    pairs, keeper = keep_while_looking(write_sides(tmp_path, images, images))
    assert pairs.formats["source"].mode == "rgb"
    assert not keeper.kept
