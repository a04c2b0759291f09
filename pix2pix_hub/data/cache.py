"""`--cache`: pairs kept decoded between epochs, in bytes that are memory-mapped and that all processes share.

What is kept is what `PairTransform.prepare` makes of a pair, so that only random augmentation is left to do; `vary`
goes on with it as without a cache, bitwise. The bytes lie in memory (a nameless file that the system frees with the
last process that uses it) or on disk, where the next run finds them again. In memory they are kept in the very pass
that looks for bad pairs, so that each is decoded once.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.data.decode import PairDataset, in_threads
from pix2pix_hub.data.transforms import PairTensors, PairTransform
from pix2pix_hub.devices import available_memory, on_any_process, sharing_failures
from pix2pix_hub.image.format import to_tensor
from pix2pix_hub.image.read import Decoded
from pix2pix_hub.util import UserError, library_versions, one_at_a_time, write_folder_aside

logger = logging.getLogger(__name__)

PIXELS_NAME, TABLE_NAME = "pixels.bin", "table.npy"
ALIGNMENT = 64  # bytes
SAMPLED = 8  # pairs, evenly spread, that tell how many bytes all will take
FORMAT = 1  # to be raised when other bytes are written for the same pairs
DEVICE_SHARE = 0.25  # of a GPU's free memory that training pairs may take
AUTO_SHARE, ASKED_SHARE = 0.5, 0.9  # of the free memory (or disk) that pairs may take, when nobody or somebody asked
OTHER_MODES = {"memory": "disk or --cache off", "disk": "off"}  # to type where there is no room

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
        owner: keeps the bytes while this lives.
    """

    def __init__(self, path: str, table: NDArray[np.int64], owner: PairWriter | None = None) -> None:
        self.path, self.table, self._owner = path, table, owner
        self._bytes = np.memmap(path, np.uint8, "c")  # "copy on write": torch wants memory it could write to

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Prepared:
        """Source and target, `(C, H, W)` of uint8 or float32, in memory that must not be written to."""
        source, target = (
            torch.frombuffer(
                self._bytes,
                dtype=torch.float32 if is_float else torch.uint8,
                count=math.prod(shape),
                offset=offset,
            ).view(shape)
            for offset, is_float, *shape in self.table[index].tolist()
        )
        return source, target

    def __reduce__(self) -> tuple[type[PairCache], tuple[str, NDArray[np.int64]]]:
        return PairCache, (self.path, self.table)

    @property
    def nbytes(self) -> int:
        """Bytes of all pairs; the file may hold others as well."""
        entries = self.table.reshape(-1, 5)
        return int((entries[:, 2:].prod(1) * np.where(entries[:, 1], 4, 1)).sum())


class PairWriter:
    """Writes prepared pairs one after the other, `limit` bytes at most, to `path` or, with None, to memory.

    That is, on Linux, a file without a name, which /dev/shm's size (64 MB in many containers) does not bound; elsewhere
    a temporary file, which the system keeps in memory while there is room. It is freed with the writer and its caches,
    once nobody else has it open.
    """

    def __init__(self, limit: int, path: Path | None = None) -> None:
        self.limit, self.offset = limit, 0
        self.entries: dict[Hashable, list[list[int]]] = {}  # a pair → its places, as in a `PairCache`'s table
        self.sink: Any
        if path is not None:
            self.sink, self.path = path.open("wb"), str(path)
        elif hasattr(os, "memfd_create"):
            self.sink = os.fdopen(os.memfd_create("pix2pix_pairs"), "wb")
            self.path = f"/proc/{os.getpid()}/fd/{self.sink.fileno()}"
        else:
            self.sink = tempfile.NamedTemporaryFile(prefix="pix2pix_pairs_")  # noqa: SIM115
            self.path = self.sink.name
        weakref.finalize(self, self.sink.close)

    def write(self, pair: Hashable, images: Prepared) -> None:
        """Raise `CacheOverflow` where there is no room for it."""
        self.entries[pair] = []
        for image in images:
            self.entries[pair].append([self.offset, image.is_floating_point(), *image.shape])
            self.offset += self.sink.write(image.contiguous().numpy().tobytes() + bytes(-image.nbytes % ALIGNMENT))
        if self.offset > self.limit:
            raise CacheOverflow

    def write_all(self, pairs: PairDataset, transform: PairTransform) -> PairCache:
        """Prepare and keep all pairs. Raise `CacheOverflow`, or a `UserError` for a pair that cannot be read."""
        prepared = in_threads(lambda index: transform.prepare(*pairs[index]), len(pairs), "caching pairs")
        for index, images in enumerate(prepared):
            self.write(index, images)
        return self.cache(range(len(pairs)))

    def cache(self, pairs: Iterable[Hashable]) -> PairCache:
        """Make a cache of these pairs, which were written."""
        self.sink.flush()
        table = np.array([self.entries[pair] for pair in pairs], np.int64).reshape(-1, 2, 5)
        return PairCache(self.path, table, self)


def estimated_bytes(pairs: PairDataset, transform: PairTransform) -> int:
    """Estimate the bytes of all prepared `pairs` from a few of them."""
    sampled = range(0, len(pairs), max(1, len(pairs) // SAMPLED))
    images = (image for index in sampled for image in transform.prepare(*pairs[index]))
    return sum(-(-image.nbytes // ALIGNMENT) * ALIGNMENT for image in images) * len(pairs) // len(sampled)


def keep_on_disk(pairs: PairDataset, transform: PairTransform, limit: int) -> PairCache:
    """Keep prepared pairs in a folder that the next run on the same pairs finds again; a stale one has another name.

    Raises:
        CacheOverflow: they take more than `limit` bytes.
        UserError: a pair that cannot be read.
    """
    folder = disk_folder(pairs, transform)
    with one_at_a_time(folder):
        if not folder.is_dir():
            with write_folder_aside(folder) as partial:
                kept = PairWriter(limit, partial / PIXELS_NAME).write_all(pairs, transform)
                np.save(partial / TABLE_NAME, kept.table)
    return PairCache(str(folder / PIXELS_NAME), np.load(folder / TABLE_NAME))


def disk_folder(pairs: PairDataset, transform: PairTransform) -> Path:
    """Under the cache of `datasets`, named by all that the bytes follow from."""
    facts = [FORMAT, sorted(library_versions().items()), transform.preparation]
    facts += [pairs.rows._fingerprint, pairs.columns, pairs.swap, pairs.formats]
    digest = hashlib.sha256(repr(facts).encode())
    digest.update(np.asarray(pairs.indices, np.int64).tobytes())
    for index in range(len(pairs)):
        row = pairs.row(index)
        for path in (row[column]["path"] for column in pairs.columns if row[column]["bytes"] is None):
            status = os.stat(path)
            digest.update(repr((path, status.st_size, status.st_mtime_ns)).encode())
    return Path(datasets.config.HF_DATASETS_CACHE) / "pix2pix_pairs" / digest.hexdigest()[:32]


class DevicePairs:
    """Prepared pairs on a device, flipped and cropped there: batch by batch bitwise what `PairTransform.vary` gives.

    What is drawn comes from the host, four numbers a pair; all else is one gather for each side.

    Args:
        pairs: of one shape.
        transform: that `only_crops`.
        device: where they are copied to.
    """

    def __init__(self, pairs: PairCache, transform: PairTransform, device: torch.device) -> None:
        self._transform, self._device = transform, device
        self._kept = [torch.empty(len(pairs), *image.shape, dtype=image.dtype, device=device) for image in pairs[0]]
        for index in range(len(pairs)):
            for kept, image in zip(self._kept, pairs[index], strict=True):
                kept[index].copy_(image)
        self._size = self._kept[0].shape[2:]
        height, width = transform.image_size
        self._rows, self._columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
        self._channels = [torch.arange(kept.shape[1], device=device)[:, None, None] for kept in self._kept]

    @classmethod
    def where_they_fit(cls, tensors: PairTensors, device: torch.device) -> DevicePairs | None:
        """Those of `tensors`, where they are kept, of one shape, and take little of a CUDA device's free memory."""
        pairs = tensors.prepared
        if device.type != "cuda" or not isinstance(pairs, PairCache) or not tensors.transform.only_crops:
            return None
        free, _ = torch.cuda.mem_get_info(device)
        if pairs.nbytes > free * DEVICE_SHARE or (pairs.table[:, :, 1:] != pairs.table[0, :, 1:]).any():
            return None
        logger.info("The training pairs are kept on the GPU: %s.", _size(pairs.nbytes))
        return cls(pairs, tensors.transform, device)

    def batch(self, keys: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """Pairs by (epoch, index): `{"source", "target"}`, `(N, C, H, W)` of prepared values, and `"index"`."""
        draws = [(index, *self._transform.draw(self._size, epoch=epoch, index=index)) for epoch, index in keys]
        numbers = torch.tensor(draws)
        numbers = numbers.pin_memory() if self._device.type == "cuda" else numbers
        index, flip, top, left = numbers.to(self._device, non_blocking=True).T[..., None, None, None]
        rows, columns = top + self._rows, left + self._columns
        columns = torch.where(flip > 0, self._size[1] - 1 - columns, columns)
        sides = zip(self._kept, self._channels, strict=True)
        source, target = (kept[index, channels, rows, columns] for kept, channels in sides)
        return {"source": source, "target": target, "index": index.flatten()}


# --- of a run


class CachePlan(NamedTuple):
    """Where pairs are kept."""

    mode: str  # "memory", "disk" or "off"
    words: str  # for a person: where, how many bytes
    limit: int = 0  # bytes
    asked: bool = False  # else the run does without where the pairs turn out larger than the first of them


class KeepWhileLooking:
    """Keeps pairs in memory while `examine` looks at them, in the pixels that the first of them have.

    Args:
        plan: for the pairs of `parts`.
        parts: pairs, in those pixels, and what prepares them.

    Attributes:
        kept: the sound pairs of each part, once all were kept.
    """

    def __init__(self, plan: CachePlan, parts: Sequence[Part]) -> None:
        self.plan, self.parts = plan, parts
        self.kept: list[tuple[PairDataset, PairCache]] = []
        self._writer: PairWriter | None = PairWriter(plan.limit)  # None: there is no room

    def __call__(self, part: int, index: int, source: Decoded, target: Decoded) -> Callable[[], None] | None:
        """Prepare a pair, where it is of the expected pixels; what is returned writes it."""
        pairs, transform = self.parts[part]
        try:
            images = zip((source, target), pairs.formats.values(), strict=True)
            prepared = transform.prepare(*(to_tensor(image, stored, "") for image, stored in images))
        except UserError:
            return None

        def write() -> None:
            try:
                if self._writer is not None:
                    self._writer.write((part, pairs.indices[index]), prepared)
            except CacheOverflow:
                self._writer = None

        return write

    def finish(self, sound: Sequence[PairDataset]) -> None:
        """Take over the pairs of each part that are sound, unless their pixels turned out to be others."""
        writer, self._writer = self._writer, None
        wanted = [[(part, row) for row in pairs.indices] for part, pairs in enumerate(sound)]
        same = [pairs.formats for pairs in sound] == [pairs.formats for pairs, _ in self.parts]
        if writer is not None and same and writer.entries.keys() >= {*sum(wanted, [])}:
            self.kept = [(pairs, writer.cache(own)) for pairs, own in zip(sound, wanted, strict=True)]


@dataclass
class RunCache:
    """The sets whose pairs are kept. On every process, with the same `plan`."""

    plan: CachePlan
    kept: Sequence[tuple[PairDataset, PairCache]] = ()  # by the process that looked at the pairs
    sets: list[PairTensors] = field(default_factory=list)  # whose pairs `fill` keeps

    def fill(self, accelerator: Accelerator) -> None:
        """Decode and keep all pairs, once on each machine. To be called by all processes.

        Raises:
            UserError: there is no room for what was asked for; a pair that cannot be read.
        """
        mode, _, room, asked = self.plan
        for tensors in self.sets if mode != "off" else []:
            pairs, transform = tensors.pairs, tensors.transform
            assert isinstance(pairs, PairDataset)
            cache = next((cache for looked_at, cache in self.kept if looked_at is pairs), None)
            with sharing_failures(), suppress(CacheOverflow):  # there is no room: it stays None
                if cache is None and mode == "disk":  # the others find what the first has written
                    cache = keep_on_disk(pairs, transform, room)
                elif cache is None and accelerator.is_local_main_process:
                    cache = PairWriter(room).write_all(pairs, transform)
            places = gather_object([cache and (cache.path, cache.table)])
            own = places[accelerator.process_index - accelerator.local_process_index]  # of this machine's first process
            tensors.prepared = cache or (own and PairCache(*own))
            if on_any_process(tensors.prepared is None):
                tensors.prepared = None
                message = f"--cache {mode}: the pairs take more than the {_size(self.plan.limit)} they may"
                if asked:
                    raise UserError(f"{message}. Type --cache {OTHER_MODES[mode]}.")
                logger.info("%s; those that do not fit are decoded in every epoch.", message)
                return
            room -= tensors.prepared.nbytes


def plan_cache(config: TrainingConfig, parts: Mapping[str, Part]) -> CachePlan:
    """Decide where pairs are kept, as `config.cache` says and the room there is.

    Args:
        config: of the run.
        parts: pairs and what prepares them, by names for people; empty where pairs are streamed.

    Raises:
        UserError: there is no room for what was asked for.
    """
    if config.cache == "off" or not parts:
        return CachePlan("off", "none: pairs are decoded whenever they are needed")
    if config.cache == "auto" and config.epochs == 1:
        return CachePlan("off", "none: every pair is seen once")
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
        return CachePlan(mode, f"decoded pairs ({counts}) take about {sizes}", limit, asked)
    if not asked:
        return CachePlan("off", f"none: decoded pairs would take about {sizes}; --cache disk keeps them there")
    raise UserError(f"--cache {mode}: decoded pairs would take about {sizes}. Type --cache {OTHER_MODES[mode]}.")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
