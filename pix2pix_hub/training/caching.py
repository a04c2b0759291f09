"""`--cache`: which pairs a run keeps decoded, and where; decided for all processes, filled before the first step."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import datasets
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.data.pair_cache import CacheOverflow, PairCache, estimated_bytes, keep_in_memory, keep_on_disk
from pix2pix_hub.data.pair_dataset import PairDataset
from pix2pix_hub.data.transforms import PairTensors, PairTransform
from pix2pix_hub.devices import available_memory
from pix2pix_hub.util import UserError

logger = logging.getLogger(__name__)

AUTO_SHARE, ASKED_SHARE = 0.5, 0.9  # of the free memory (or disk) that pairs may take, when nobody or somebody asked


@dataclass
class RunCache:
    """The sets whose pairs are kept. On every process, with the same `mode`."""

    mode: str  # "memory", "disk" or "off"
    words: str  # for a person: where, how many bytes
    limit: int = 0  # bytes
    asked: bool = False  # else the run does without where the pairs turn out larger than the first of them
    _sets: list[PairTensors] = field(default_factory=list)

    def add(self, tensors: PairTensors) -> PairTensors:
        """Have `fill` keep these; returns them."""
        self._sets.append(tensors)
        return tensors

    def fill(self, accelerator: Accelerator) -> None:
        """Decode and keep all pairs, once on each machine. To be called by all processes.

        Raises:
            UserError: there is no room for what was asked for; a pair that cannot be read.
        """
        room = self.limit
        for tensors in self._sets if self.mode != "off" else []:
            assert isinstance(tensors.pairs, PairDataset)
            tensors.prepared = self._kept(accelerator, tensors.pairs, tensors.transform, room)
            if tensors.prepared is None:
                message = f"--cache {self.mode}: the pairs take more than the {_size(self.limit)} they may"
                if self.asked:
                    raise UserError(f"{message}. Type --cache {_other(self.mode)}.")
                logger.info("%s; those that do not fit are decoded in every epoch.", message)
                return
            room -= tensors.prepared.nbytes

    def _kept(
        self, accelerator: Accelerator, pairs: PairDataset, transform: PairTransform, room: int
    ) -> PairCache | None:
        """None: no room."""
        cache = None
        try:
            if self.mode == "disk":  # the others find what the first has written
                cache = keep_on_disk(pairs, transform, room)
            elif accelerator.is_local_main_process:
                cache = keep_in_memory(pairs, transform, room)
        except CacheOverflow:
            pass
        places = gather_object([cache and cache.place])
        own = places[accelerator.process_index - accelerator.local_process_index]  # of this machine's first process
        return cache or (own and PairCache(own))


def plan_cache(
    accelerator: Accelerator, config: TrainingConfig, parts: Mapping[str, tuple[PairDataset, PairTransform]]
) -> RunCache:
    """What `config.cache` comes to for `parts` (name → pairs, transform), which are empty where pairs are streamed.

    Raises:
        UserError: there is no room for what was asked for.
    """
    plan = _plan(config, parts) if accelerator.is_main_process else None
    return RunCache(*broadcast_object_list([plan])[0])


def _plan(config: TrainingConfig, parts: Mapping[str, tuple[PairDataset, PairTransform]]) -> tuple[str, str, int, bool]:
    """Mode, words, limit, whether it was asked for."""
    if config.cache == "off" or not parts:
        return "off", "none: pairs are decoded whenever they are needed", 0, False
    if config.cache == "auto" and config.epochs == 1:
        return "off", "none: every pair is seen once", 0, False
    asked = config.cache != "auto"
    mode = config.cache if asked else "memory"
    needed = sum(estimated_bytes(*part) for part in parts.values())
    free, place = available_memory(), "memory"
    if mode == "disk":
        place = str(datasets.config.HF_DATASETS_CACHE)
        free = shutil.disk_usage(_existing(Path(place))).free
    limit = int(free * (ASKED_SHARE if asked else AUTO_SHARE))
    sizes = f"{_size(needed)} of {_size(free)} free in {place}"
    if needed <= limit:
        counts = ", ".join(f"{len(pairs)} {name}" for name, (pairs, _) in parts.items())
        return mode, f"decoded pairs ({counts}) take about {sizes}", limit, asked
    if not asked:
        return "off", f"none: decoded pairs would take about {sizes}; --cache disk keeps them there", 0, False
    raise UserError(f"--cache {mode}: decoded pairs would take about {sizes}. Type --cache {_other(mode)}.")


def _other(mode: str) -> str:
    return "disk or --cache off" if mode == "memory" else "off"


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
