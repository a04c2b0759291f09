"""Decoded pairs kept between epochs: one block of bytes, memory-mapped, that all processes of a machine share.

What is kept is what `PairTransform.prepare` makes of a pair, so that only random augmentation is left to do; `vary`
goes on with it as without a cache, bitwise. The bytes lie in memory (a nameless file that the system frees with the
last process that uses it) or on disk, where the next run finds them again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import datasets
import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pix2pix_hub.data.pair_dataset import PairDataset
from pix2pix_hub.data.transforms import PairTransform
from pix2pix_hub.util import library_versions, write_folder_aside

PIXELS_NAME, TABLE_NAME = "pixels.bin", "table.npy"
ALIGNMENT = 64  # bytes
SAMPLED = 8  # pairs, evenly spread, that tell how many bytes all will take
TOGETHER = 64  # pairs decoded before they are written, which bounds memory
THREADS = 8  # at most, that decode
FORMAT = 1  # to be raised when other bytes are written for the same pairs

Prepared = tuple[Tensor, Tensor]


class CacheOverflow(Exception):
    """The pairs take more bytes than they may."""


class Place(NamedTuple):
    """Where kept pairs lie."""

    path: str
    table: NDArray[np.int64]  # (pairs, 2, 5): offset, float32 or not, channels, height, width of source and target


class PairCache:
    """Prepared pairs, by their number. Picklable: other processes open the same bytes."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._bytes = np.memmap(place.path, np.uint8, "c")  # "copy on write": torch wants memory it could write to

    def __len__(self) -> int:
        return len(self.place.table)

    def __getitem__(self, index: int) -> Prepared:
        """Source and target, `(C, H, W)` of uint8 or float32, in memory that must not be written to."""
        source, target = (self._image(*row) for row in self.place.table[index].tolist())
        return source, target

    def __reduce__(self) -> tuple[type[PairCache], tuple[Place]]:
        return PairCache, (self.place,)

    @property
    def nbytes(self) -> int:
        """Bytes of all pairs."""
        return self._bytes.nbytes

    def _image(self, offset: int, is_float: int, channels: int, height: int, width: int) -> Tensor:
        dtype = np.float32 if is_float else np.uint8
        values = np.frombuffer(self._bytes, dtype, channels * height * width, offset)
        return torch.from_numpy(values).view(channels, height, width)


def estimated_bytes(pairs: PairDataset, transform: PairTransform) -> int:
    """What `pairs` will take, told by a few of them."""
    step = max(1, len(pairs) // SAMPLED)
    sampled = range(0, len(pairs), step)
    taken = sum(_padded(image.nbytes) for index in sampled for image in transform.prepare(*pairs[index]))
    return taken * len(pairs) // len(sampled)


def keep_in_memory(pairs: PairDataset, transform: PairTransform, limit: int) -> PairCache:
    """Prepare all pairs and keep them in memory that is freed with the object, once nobody else has it open.

    Raises:
        CacheOverflow: they take more than `limit` bytes.
        UserError: a pair that cannot be read.
    """
    descriptor, path, free = _nameless_file()
    try:
        with os.fdopen(os.dup(descriptor), "wb") as sink:
            table = _write(pairs, transform, sink, limit)
        cache = PairCache(Place(path, table))
    except BaseException:
        free()
        raise
    weakref.finalize(cache, free)
    return cache


def keep_on_disk(pairs: PairDataset, transform: PairTransform, limit: int) -> PairCache:
    """The same on disk, in a folder that the next run on the same pairs finds again; a stale one has another name.

    Raises:
        CacheOverflow, UserError: as `keep_in_memory`.
    """
    folder = disk_folder(pairs, transform)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / TABLE_NAME).is_file():
            with write_folder_aside(folder) as partial:
                with (partial / PIXELS_NAME).open("wb") as sink:
                    table = _write(pairs, transform, sink, limit)
                np.save(partial / TABLE_NAME, table)
    return PairCache(Place(str(folder / PIXELS_NAME), np.load(folder / TABLE_NAME)))


def disk_folder(pairs: PairDataset, transform: PairTransform) -> Path:
    """Under the cache of `datasets`, named by all that the bytes follow from."""
    rows, decoder = pairs.rows, pairs.decoder
    facts = [FORMAT, sorted(library_versions().items()), rows._fingerprint, decoder, transform.preparation]
    digest = hashlib.sha256(repr(facts).encode())
    digest.update(np.asarray(pairs.indices, np.int64).tobytes())
    for path in _paths(pairs):
        status = os.stat(path)
        digest.update(repr((path, status.st_size, status.st_mtime_ns)).encode())
    return Path(datasets.config.HF_DATASETS_CACHE) / "pix2pix_pairs" / digest.hexdigest()[:32]


def _paths(pairs: PairDataset) -> Iterator[str]:
    """Files that the pairs are read from, where their bytes are not in the rows."""
    for index in range(len(pairs)):
        row = pairs.row(index)
        yield from (row[column]["path"] for column in pairs.columns if row[column]["bytes"] is None)


def _write(pairs: PairDataset, transform: PairTransform, sink: BinaryIO, limit: int) -> NDArray[np.int64]:
    """All pairs one after the other; where each is."""
    table = np.empty((len(pairs), 2, 5), np.int64)
    offset = 0
    for number, images in enumerate(_prepared(pairs, transform)):
        for side, image in enumerate(images):
            table[number, side] = offset, image.is_floating_point(), *image.shape
            values = image.contiguous().numpy().tobytes()
            offset += sink.write(values + bytes(-len(values) % ALIGNMENT))
        if offset > limit:
            raise CacheOverflow
    return table


def _prepared(pairs: PairDataset, transform: PairTransform) -> Iterator[Prepared]:
    """In order, decoded in threads (Pillow and torch work outside the interpreter's lock)."""

    def prepare(index: int) -> Prepared:
        return transform.prepare(*pairs[index])

    with (
        ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool,
        tqdm(total=len(pairs), desc="caching pairs", unit="pair", leave=False, disable=len(pairs) <= 1000) as bar,
    ):
        for start in range(0, len(pairs), TOGETHER):
            for images in pool.map(prepare, range(start, min(start + TOGETHER, len(pairs)))):
                yield images
                bar.update()


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _nameless_file() -> tuple[int, str, Callable[[], None]]:
    """Descriptor, a path by which this machine's processes open it, and what lets go of it.

    On Linux a file in memory, which /dev/shm's size (64 MB in many containers) does not bound; elsewhere a temporary
    file, which the system keeps in memory while there is room.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pix2pix_pairs")
        return descriptor, f"/proc/{os.getpid()}/fd/{descriptor}", lambda: os.close(descriptor)
    descriptor, path = tempfile.mkstemp(prefix="pix2pix_pairs_")

    def free() -> None:
        os.close(descriptor)
        os.unlink(path)

    return descriptor, path, free
