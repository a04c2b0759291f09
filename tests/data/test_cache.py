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
from numpy.typing import NDArray
from PIL import Image

from pix2pix_hub.config import PairOptions
from pix2pix_hub.data.cache import (
    CacheOverflow,
    KeepWhileLooking,
    PairCache,
    Plan,
    disk_folder,
    estimated_bytes,
    keep_in_memory,
    keep_on_disk,
)
from pix2pix_hub.data.decode import PairDataset
from pix2pix_hub.data.pairs import PairSplits, load_pairs
from pix2pix_hub.data.tools import build_pairs, write_dataset
from pix2pix_hub.data.transforms import PairTensors, PairTransform

pytestmark = pytest.mark.usefixtures("datasets_cache")
ROOM = 10**9
Keep = Callable[[PairDataset, PairTransform, int], PairCache]


def pixels(kind: str, side: int, index: int) -> NDArray[Any]:
    random = np.random.default_rng([side, index])
    if kind == "labels":
        return random.integers(0, 3, (side, side, 1)).astype(np.uint8)
    if kind == "float":
        return random.normal(size=(side, side, 2)).astype(np.float32)
    return random.integers(0, 256 if kind == "bytes" else 65536, (side, side, 3)).astype(
        np.uint8 if kind == "bytes" else np.uint16
    )


def write_pairs(root: Path, source: str, target: str) -> Path:
    """Six pairs of several sizes."""
    for folder, kind in (("A", source), ("B", target)):
        (root / folder).mkdir(parents=True)
        for index in range(6):
            np.save(root / folder / f"{index}.npy", pixels(kind, 37 + 4 * index, index))
    return root


def open_pairs(root: Path, labels: bool = False) -> PairDataset:
    return load_pairs(PairOptions(str(root), source_mode="labels" if labels else "auto")).train


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
    source: str, target: str, how: str, keep: Keep, tmp_path: Path
) -> None:
    pairs = open_pairs(write_pairs(tmp_path / "pairs", source, target), labels=source == "labels")
    transform = PairTransform((32, 32), formats=pairs.formats, **TRANSFORMS[how])
    plain, kept = PairTensors(pairs, transform), PairTensors(pairs, transform)
    kept.prepared = keep(pairs, transform, ROOM)
    for key in [(0, 0), (0, 1), (1, 1), (2, len(pairs) - 1)]:
        expected, got = plain[key], kept[key]
        assert all(torch.equal(expected[side], got[side]) for side in ("source", "target"))
    assert not torch.equal(kept[0, 1]["source"], kept[0, 2]["source"])


def test_what_is_estimated_is_what_is_taken(tmp_path: Path) -> None:
    pairs = open_pairs(write_pairs(tmp_path / "pairs", "bytes", "bytes"))
    transform = PairTransform((32, 32), augment=True, jitter_scale=1.0)
    assert keep_in_memory(pairs, transform, ROOM).nbytes == len(pairs) * 2 * 3 * 32 * 32
    assert estimated_bytes(pairs, transform) == len(pairs) * 2 * 3 * 32 * 32


def test_other_processes_are_handed_a_path_not_the_pixels(tmp_path: Path) -> None:
    pairs = open_pairs(write_pairs(tmp_path / "pairs", "bytes", "bytes"))
    cache = keep_in_memory(pairs, PairTransform((256, 256), augment=False), ROOM)
    handed = pickle.dumps(cache)
    assert len(handed) < 5000 < cache.nbytes
    assert torch.equal(pickle.loads(handed)[3][1], cache[3][1])


def test_memory_is_given_back_with_the_cache(tmp_path: Path) -> None:
    pairs = open_pairs(write_pairs(tmp_path / "pairs", "bytes", "bytes"))

    def held() -> list[str]:
        gc.collect()
        return [name for name in map(os.readlink, _descriptors()) if "pix2pix_pairs" in name]

    cache = keep_in_memory(pairs, PairTransform((32, 32), augment=False), ROOM)
    assert held()
    del cache
    assert not held()
    with pytest.raises(CacheOverflow):
        keep_in_memory(pairs, PairTransform((32, 32), augment=False), 1000)
    assert not held()


def _descriptors() -> list[str]:
    return [path for name in os.listdir("/proc/self/fd") if os.path.islink(path := f"/proc/self/fd/{name}")]


def test_a_cache_on_disk_is_found_again_by_the_same_set_alone(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "pairs", "bytes", "bytes")
    transform = PairTransform((32, 32), augment=True)
    first = Path(keep_on_disk(open_pairs(root), transform, ROOM).path)
    written = first.stat().st_mtime_ns
    assert keep_on_disk(open_pairs(root), transform, ROOM).path == str(first)
    assert first.stat().st_mtime_ns == written

    pairs = open_pairs(root)
    others = [
        disk_folder(pairs, PairTransform((64, 64), augment=True)),
        disk_folder(pairs, PairTransform((32, 32), augment=True, rotation_degrees=1.0)),
        disk_folder(pairs, PairTransform((32, 32), augment=False)),
    ]
    assert len({first.parent, *others}) == 4
    assert disk_folder(pairs, PairTransform((32, 32), augment=True, color_jitter=0.5, seed=9)) == first.parent


def test_an_image_changed_since_is_never_taken_from_the_disk(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "pairs", "bytes", "bytes")
    transform = PairTransform((32, 32), augment=False)
    before = open_pairs(root)
    stale = keep_on_disk(before, transform, ROOM)
    name = root / "A" / Path(before.name(0)).name
    np.save(name, np.zeros_like(np.load(name)))  # of the same size
    os.utime(name, ns=(1, 1))
    fresh = keep_on_disk(open_pairs(root), transform, ROOM)
    assert fresh.path != stale.path
    assert stale[0][0].any() and not fresh[0][0].any()


def test_a_table_that_was_written_anew_is_another_set(tmp_path: Path) -> None:
    """Its bytes are in its rows, not in files."""
    folders = []
    for shade in (10, 200):
        root = tmp_path / f"{shade}" / "images"
        for part, side in (("A", 0), ("B", 1)):
            (root / part).mkdir(parents=True)
            for index in range(6):
                Image.new("RGB", (32, 32), (shade, side, index)).save(root / part / f"{index}.png")
        write_dataset(build_pairs(PairOptions(str(root)), "set"), tmp_path / f"set{shade}")
        pairs = open_pairs(tmp_path / f"set{shade}")
        again = open_pairs(tmp_path / f"set{shade}")
        transform = PairTransform((32, 32), augment=False)
        assert disk_folder(pairs, transform) == disk_folder(again, transform)
        folders.append(disk_folder(pairs, transform))
    assert folders[0] != folders[1]


def test_what_does_not_fit_leaves_nothing_on_disk(tmp_path: Path, datasets_cache: Path) -> None:
    pairs = open_pairs(write_pairs(tmp_path / "pairs", "bytes", "bytes"))
    with pytest.raises(CacheOverflow):
        keep_on_disk(pairs, PairTransform((32, 32), augment=False), 1000)
    assert not [path for path in datasets_cache.rglob("*.bin") if path.stat().st_size]


def keep_while_looking(root: Path, **options: Any) -> tuple[PairSplits, KeepWhileLooking]:
    request = PairOptions(str(root), image_size="32", **options)

    def keep(parts: Sequence[PairDataset]) -> KeepWhileLooking:
        plan = Plan("memory", "", limit=ROOM)
        return KeepWhileLooking(
            plan, [(part, PairTransform((32, 32), augment=True, formats=part.formats)) for part in parts]
        )

    pairs = load_pairs(request, keep=keep)
    assert pairs.keeper is not None
    return pairs, pairs.keeper


def test_what_is_kept_while_looking_is_what_decoding_gives(tmp_path: Path) -> None:
    """Also where a bad pair is among them."""
    root = write_pairs(tmp_path / "pairs", "bytes", "bytes")
    np.save(root / "A" / "3.npy", pixels("float", 49, 3))
    (root / "B" / "5.npy").write_bytes(b"torn")
    pairs, keeper = keep_while_looking(root, on_bad_pair="skip", validation_split=None)
    assert len(pairs.findings.faults) == 2
    assert all(kept is part for (kept, _), part in zip(keeper.kept, (pairs.train, pairs.validation), strict=True))
    for (part, cache), (_, transform) in zip(keeper.kept, keeper.parts, strict=True):
        assert len(cache) == len(part) > 0
        for index in range(len(part)):
            expected = transform.prepare(*part[index])
            assert all(torch.equal(*images) for images in zip(cache[index], expected, strict=True))


def test_nothing_is_kept_of_pixels_that_the_first_pairs_did_not_have(tmp_path: Path) -> None:
    """The first eight images are gray, which makes gray of all of them until another is seen."""
    for side in "AB":
        (tmp_path / side).mkdir()
        for index in range(20):
            Image.new("RGB" if index > 15 else "L", (32, 32), index).save(tmp_path / side / f"{index}.png")
    pairs, keeper = keep_while_looking(tmp_path)
    assert pairs.formats["source"].mode == "rgb"
    assert not keeper.kept
