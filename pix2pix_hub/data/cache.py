"""`--cache`: pairs kept decoded between epochs, in bytes that are memory-mapped and that all processes share.

What is kept is what `PairTransform.prepare` makes of a pair, so that only random augmentation is left to do; `vary`
goes on with it as without a cache, bitwise. The bytes lie in memory (a nameless file that the system frees with the
last process that uses it) or on disk, where the next run finds them again. In memory they are kept in the very pass
that looks for bad pairs, so that each is decoded once.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.data.decode import PairDataset, in_threads
from pix2pix_hub.data.transforms import PairTensors, PairTransform
from pix2pix_hub.devices import available_memory
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.image.read import Decoded
from pix2pix_hub.util import UserError, library_versions, write_folder_aside

logger = logging.getLogger(__name__)

PIXELS_NAME, TABLE_NAME = "pixels.bin", "table.npy"
ALIGNMENT = 64  # bytes
SAMPLED = 8  # pairs, evenly spread, that tell how many bytes all will take
FORMAT = 1  # to be raised when other bytes are written for the same pairs
AUTO_SHARE, ASKED_SHARE = 0.5, 0.9  # of the free memory (or disk) that pairs may take, when nobody or somebody asked

Prepared = tuple[Tensor, Tensor]
Part = tuple[PairDataset, PairTransform]


class CacheOverflow(Exception):
    """The pairs take more bytes than they may."""


# --- bytes


class PairCache:
    """Prepared pairs, by their number. Picklable: other processes open the same bytes.

    Args:
        path: of the bytes.
        table: `(pairs, 2, 5)`, of source and target: offset, float32 or not, channels, height, width.
    """

    def __init__(self, path: str, table: NDArray[np.int64]) -> None:
        self.path, self.table = path, table
        self._bytes = np.memmap(path, np.uint8, "c")  # "copy on write": torch wants memory it could write to

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Prepared:
        """Source and target, `(C, H, W)` of uint8 or float32, in memory that must not be written to."""
        source, target = (self._image(*row) for row in self.table[index].tolist())
        return source, target

    def __reduce__(self) -> tuple[type[PairCache], tuple[str, NDArray[np.int64]]]:
        return PairCache, (self.path, self.table)

    @property
    def nbytes(self) -> int:
        """Bytes of all pairs."""
        return self._bytes.nbytes

    def _image(self, offset: int, is_float: int, channels: int, height: int, width: int) -> Tensor:
        dtype = np.float32 if is_float else np.uint8
        values = np.frombuffer(self._bytes, dtype, channels * height * width, offset)
        return torch.from_numpy(values).view(channels, height, width)


class PairWriter:
    """Writes prepared pairs one after the other, `limit` bytes at most, to `path` or, with None, to memory.

    That is, on Linux, a file without a name, which /dev/shm's size (64 MB in many containers) does not bound; elsewhere
    a temporary file, which the system keeps in memory while there is room.
    """

    def __init__(self, limit: int, path: Path | None = None) -> None:
        self.limit, self.offset = limit, 0
        self.entries: dict[int, list[list[int]]] = {}  # number of a pair → its places, as in a `PairCache`'s table
        self.sink: Any
        if path is not None:
            self.sink, self.path = path.open("wb"), str(path)
        elif hasattr(os, "memfd_create"):
            self.sink = os.fdopen(os.memfd_create("pix2pix_pairs"), "wb")
            self.path = f"/proc/{os.getpid()}/fd/{self.sink.fileno()}"
        else:
            self.sink = tempfile.NamedTemporaryFile(prefix="pix2pix_pairs_")  # noqa: SIM115
            self.path = self.sink.name
        self._free = weakref.finalize(self, self.sink.close)

    def write(self, number: int, images: Prepared) -> None:
        """Raise `CacheOverflow` where there is no room for it."""
        self.entries[number] = []
        for image in images:
            self.entries[number].append([self.offset, image.is_floating_point(), *image.shape])
            self.offset += self.sink.write(image.contiguous().numpy().tobytes() + bytes(-image.nbytes % ALIGNMENT))
        if self.offset > self.limit:
            raise CacheOverflow

    def write_all(self, pairs: PairDataset, transform: PairTransform) -> None:
        """Raise `CacheOverflow`, or a `UserError` for a pair that cannot be read."""
        prepared = in_threads(lambda index: transform.prepare(*pairs[index]), len(pairs), "caching pairs")
        for index, images in enumerate(prepared):
            self.write(index, images)

    def table(self, numbers: Iterable[int]) -> NDArray[np.int64]:
        """Where those pairs are, for a `PairCache`."""
        self.sink.flush()
        return np.array([self.entries[number] for number in numbers], np.int64).reshape(-1, 2, 5)

    def cache(self, numbers: Iterable[int]) -> PairCache:
        """Those pairs, in memory that is freed with the cache, once nobody else has it open."""
        cache = PairCache(self.path, self.table(numbers))
        if self._free.detach() is not None:
            weakref.finalize(cache, self.sink.close)
        return cache


def estimated_bytes(pairs: PairDataset, transform: PairTransform) -> int:
    """What `pairs` will take, told by a few of them."""
    sampled = range(0, len(pairs), max(1, len(pairs) // SAMPLED))
    images = (image for index in sampled for image in transform.prepare(*pairs[index]))
    return sum(-(-image.nbytes // ALIGNMENT) * ALIGNMENT for image in images) * len(pairs) // len(sampled)


def keep_in_memory(pairs: PairDataset, transform: PairTransform, limit: int) -> PairCache:
    """Prepare all pairs and keep them.

    Raises:
        CacheOverflow: they take more than `limit` bytes.
        UserError: a pair that cannot be read.
    """
    writer = PairWriter(limit)
    writer.write_all(pairs, transform)
    return writer.cache(range(len(pairs)))


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
                writer = PairWriter(limit, partial / PIXELS_NAME)
                writer.write_all(pairs, transform)
                np.save(partial / TABLE_NAME, writer.table(range(len(pairs))))
    return PairCache(str(folder / PIXELS_NAME), np.load(folder / TABLE_NAME))


def disk_folder(pairs: PairDataset, transform: PairTransform) -> Path:
    """Under the cache of `datasets`, named by all that the bytes follow from."""
    facts = [FORMAT, sorted(library_versions().items()), pairs.rows._fingerprint, pairs.decoder, transform.preparation]
    digest = hashlib.sha256(repr(facts).encode())
    digest.update(np.asarray(pairs.indices, np.int64).tobytes())
    for index in range(len(pairs)):
        row = pairs.row(index)
        for path in (row[column]["path"] for column in pairs.columns if row[column]["bytes"] is None):
            status = os.stat(path)
            digest.update(repr((path, status.st_size, status.st_mtime_ns)).encode())
    return Path(datasets.config.HF_DATASETS_CACHE) / "pix2pix_pairs" / digest.hexdigest()[:32]


# --- of a run


class Plan(NamedTuple):
    """Where pairs are kept."""

    mode: str  # "memory", "disk" or "off"
    words: str  # for a person: where, how many bytes
    limit: int = 0  # bytes
    asked: bool = False  # else the run does without where the pairs turn out larger than the first of them


class KeepWhileLooking:
    """Keeps pairs in memory while they are looked at, in the pixels that the first of them have.

    Args:
        plan: for the pairs of `parts`.
        parts: pairs, in those pixels, and what prepares them.
    """

    def __init__(self, plan: Plan, parts: Sequence[Part]) -> None:
        self.plan, self.parts = plan, parts
        self.writers = [PairWriter(plan.limit) for _ in parts]
        self.kept: list[tuple[PairDataset, PairCache]] = []  # the sound pairs of each part, where all were kept

    def prepare(self, part: int, source: Decoded, target: Decoded) -> Prepared | None:
        """A pair, where it is of the expected pixels."""
        pairs, transform = self.parts[part]
        try:
            return transform.prepare(*pairs.decoder.to_tensors(source, target, ("", "")))
        except UserError:
            return None

    def keep(self, part: int, index: int, prepared: Prepared | None) -> None:
        """Write what `prepare` made; nothing more once there is no room."""
        if prepared is not None and sum(writer.offset for writer in self.writers) <= self.plan.limit:
            with suppress(CacheOverflow):
                self.writers[part].write(self.parts[part][0].indices[index], prepared)

    def finish(self, sound: Sequence[PairDataset]) -> None:
        """Take over the pairs of each part that are sound, unless their pixels turned out to be others."""
        parts = list(zip(sound, self.parts, self.writers, strict=True))
        if sum(writer.offset for writer in self.writers) <= self.plan.limit and all(
            _plain_formats(pairs) == _plain_formats(expected) and writer.entries.keys() >= {*pairs.indices}
            for pairs, (expected, _), writer in parts
        ):
            self.kept = [(pairs, writer.cache(pairs.indices)) for pairs, _, writer in parts]
        self.writers = []


def _plain_formats(pairs: PairDataset) -> list[PixelFormat]:
    """All that decoding follows from; what colours there are is only told."""
    return [replace(stored, palette=()) for stored in pairs.formats.values()]


@dataclass
class RunCache:
    """The sets whose pairs are kept. On every process, with the same `plan`."""

    plan: Plan
    kept: Sequence[tuple[PairDataset, PairCache]] = ()  # by the process that looked at the pairs
    _sets: list[PairTensors] = field(default_factory=list)

    @property
    def mode(self) -> str:
        """ "memory", "disk" or "off"."""
        return self.plan.mode

    def add(self, tensors: PairTensors) -> PairTensors:
        """Have `fill` keep these; returns them."""
        self._sets.append(tensors)
        return tensors

    def fill(self, accelerator: Accelerator) -> None:
        """Decode and keep all pairs, once on each machine. To be called by all processes.

        Raises:
            UserError: there is no room for what was asked for; a pair that cannot be read.
        """
        mode, _, room, asked = self.plan
        for tensors in self._sets if mode != "off" else []:
            tensors.prepared = self._kept(accelerator, tensors, room)
            if tensors.prepared is None:
                message = f"--cache {mode}: the pairs take more than the {_size(self.plan.limit)} they may"
                if asked:
                    raise UserError(f"{message}. Type --cache {_other(mode)}.")
                logger.info("%s; those that do not fit are decoded in every epoch.", message)
                return
            room -= tensors.prepared.nbytes

    def _kept(self, accelerator: Accelerator, tensors: PairTensors, room: int) -> PairCache | None:
        """None: no room."""
        assert isinstance(tensors.pairs, PairDataset)
        cache = next((cache for pairs, cache in self.kept if pairs is tensors.pairs), None)
        with suppress(CacheOverflow):  # there is no room: it stays None
            if cache is None and self.mode == "disk":  # the others find what the first has written
                cache = keep_on_disk(tensors.pairs, tensors.transform, room)
            elif cache is None and accelerator.is_local_main_process:
                cache = keep_in_memory(tensors.pairs, tensors.transform, room)
        places = gather_object([cache and (cache.path, cache.table)])
        own = places[accelerator.process_index - accelerator.local_process_index]  # of this machine's first process
        return cache or (own and PairCache(*own))


def plan_cache(config: TrainingConfig, parts: Mapping[str, Part]) -> Plan:
    """What `config.cache` comes to for `parts`, by their names, which are empty where pairs are streamed.

    Raises:
        UserError: there is no room for what was asked for.
    """
    if config.cache == "off" or not parts:
        return Plan("off", "none: pairs are decoded whenever they are needed")
    if config.cache == "auto" and config.epochs == 1:
        return Plan("off", "none: every pair is seen once")
    asked = config.cache != "auto"
    mode = config.cache if asked else "memory"
    needed = sum(estimated_bytes(*part) for part in parts.values())
    free, place = available_memory(), "memory"
    if mode == "disk":
        place = str(datasets.config.HF_DATASETS_CACHE)
        free = shutil.disk_usage(
            next(path for path in (Path(place), *Path(place).absolute().parents) if path.exists())
        ).free
    limit = int(free * (ASKED_SHARE if asked else AUTO_SHARE))
    sizes = f"{_size(needed)} of {_size(free)} free in {place}"
    if needed <= limit:
        counts = ", ".join(f"{len(pairs)} {name}" for name, (pairs, _) in parts.items())
        return Plan(mode, f"decoded pairs ({counts}) take about {sizes}", limit, asked)
    if not asked:
        return Plan("off", f"none: decoded pairs would take about {sizes}; --cache disk keeps them there")
    raise UserError(f"--cache {mode}: decoded pairs would take about {sizes}. Type --cache {_other(mode)}.")


def _other(mode: str) -> str:
    return "disk or --cache off" if mode == "memory" else "off"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
