"""From the options to batches: pairs opened by all processes of a launch, the loaders they come out of, and what the
run folder says about them."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.data_loader import DataLoaderStateMixin
from accelerate.state import GradientState
from accelerate.utils import broadcast_object_list, gather_object, send_to_device
from torch.utils.data import DataLoader

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.data.cache import KeepWhileLooking, RunCache, plan_cache
from pix2pix_hub.data.decode import BAD_PAIRS_NAME, LISTED_FAULTS, Fault, PairDataset, Place, each_once, write_bad_pairs
from pix2pix_hub.data.order import BlockSampler, EpochSampler, ProcessBatches
from pix2pix_hub.data.pairs import PairSplits, load_pairs
from pix2pix_hub.data.stream import ShardPlaces, StreamTensors, open_stream, start_worker
from pix2pix_hub.data.transforms import PairTensors, PairTransform, collate
from pix2pix_hub.devices import cpu_cores
from pix2pix_hub.export import TRAINING_CONFIG_NAME
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.util import UserError, counted, read_object, write_aside

logger = logging.getLogger(__name__)

STREAM_WORKERS = 2  # where none are asked for; on every machine, since the order of a stream's pairs depends on it
MOST_WORKERS = 8  # that are started unasked
SHARDS_NAME = "shards.json"  # in a run folder: rows of each shard that it is streamed from


# --- pairs


def open_together(config: TrainingConfig, state: PartialState, run_folder: Path) -> PairSplits:
    """The pairs that `config` names, on every process of a launch: the first looks at them and tells the others.

    Raises:
        UserError: see `load_pairs` and `open_stream` in `pix2pix_hub.data.pairs`.
    """
    if config.streaming:
        lengths = read_object(run_folder / SHARDS_NAME).get("rows")
        pairs = open_stream(config, config.shuffle_buffer, lengths=lengths) if state.is_main_process else None
        lengths, findings = broadcast_object_list([pairs and pairs.lengths, pairs and pairs.findings])
        return pairs or open_stream(config, config.shuffle_buffer, lengths=lengths, findings=findings)

    def keep(parts: Sequence[PairDataset]) -> KeepWhileLooking | None:
        named = cache_parts(config, *parts)
        plan = plan_cache(config, named)
        return KeepWhileLooking(plan, list(named.values())) if plan.mode == "memory" and not config.dry_run else None

    pairs = load_pairs(config, keep=keep) if state.is_main_process else None
    findings = broadcast_object_list([pairs and pairs.findings])[0]
    return pairs or load_pairs(config, findings=findings)


def cache_parts(
    config: TrainingConfig, train: PairDataset, validation: PairDataset
) -> dict[str, tuple[PairDataset, PairTransform]]:
    """What `--cache` can keep: pairs and what prepares them."""
    transforms = train_transform(config, train.formats), evaluation_transform(config, validation.formats)
    return {"training": (train, transforms[0]), "validation": (validation, transforms[1])}


def make_cache(accelerator: Accelerator, config: TrainingConfig, pairs: PairSplits) -> RunCache:
    """What `--cache` keeps of `pairs`; of a stream nothing.

    Raises:
        UserError: there is no room for what was asked for.
    """
    keeper, plan = pairs.keeper, None
    if accelerator.is_main_process:
        parts = {} if pairs.lengths is not None else cache_parts(config, pairs.train, pairs.validation)
        plan = keeper.plan if keeper is not None and keeper.kept else plan_cache(config, parts)
    return RunCache(broadcast_object_list([plan])[0], keeper.kept if keeper is not None else ())


def evaluation_transform(config: TrainingConfig, formats: Mapping[str, PixelFormat]) -> PairTransform:
    """What validation pairs go through, and with them whatever the model will be used on."""
    return PairTransform(config.image_height_width, augment=False, resize=config.resize, formats=formats)


def train_transform(config: TrainingConfig, formats: Mapping[str, PixelFormat]) -> PairTransform:
    """The augmentation that `config` describes.

    Raises:
        UserError: colour jitter on pixels that have no colour.
    """
    return PairTransform(
        config.image_height_width,
        augment=True,
        resize=config.resize,
        formats=formats,
        flip_probability=config.flip_probability,
        rotation_degrees=config.rotation_degrees,
        jitter_scale=config.jitter_scale,
        color_jitter=config.color_jitter,
        color_jitter_side=config.color_jitter_side,
        seed=config.seed,
    )


# --- loaders


class TrainLoader(DataLoaderStateMixin):
    """This process's training batches, map-style or streamed, epoch by epoch: over all processes every pair once.

    What a batch holds is drawn from (seed, epoch), so the number of batches taken is all that resuming needs. Bad pairs
    met in a stream are this process's own, and so is its number of workers, which the order of a stream depends on:
    both are kept in checkpoints.

    Raises:
        UserError: fewer pairs than processes.
    """

    def __init__(
        self, accelerator: Accelerator, config: TrainingConfig, pairs: PairSplits, cache: RunCache | None = None
    ) -> None:
        self.accelerator = accelerator
        self.gradient_state = GradientState()
        self.streamed = pairs.lengths is not None
        self.skip_bad_pairs = config.on_bad_pair == "skip"
        self.faults: dict[Place, Fault] = {}  # pairs left out, in all epochs
        self.reason_ahead: str | None = None  # why training cannot go on with the next batch
        self._accumulation = config.gradient_accumulation_steps
        transform = train_transform(config, pairs.formats)
        self.workers = worker_count(accelerator, config)
        self.sampler: EpochSampler
        if self.streamed:
            places = pairs.train.indices
            assert isinstance(places, ShardPlaces)
            blocks = [places.blocks(number, pairs.train.rows.block) for number in range(len(places.stretches))]
            self.sampler = BlockSampler(blocks, max(1, self.workers), seed=config.seed)
            self.dataset: PairTensors = StreamTensors(pairs.train, transform)
        else:
            self.sampler = EpochSampler(len(pairs.train), seed=config.seed)
            self.dataset = PairTensors(pairs.train, transform)
            if cache is not None:
                cache.add(self.dataset)
        shares = accelerator.num_processes, accelerator.process_index
        self.batches = ProcessBatches(self.sampler, config.batch_size, *shares)
        options = _loader_options(accelerator, self.workers) | {"persistent_workers": self.workers > 0}
        self._loader = DataLoader(
            self.dataset, batch_sampler=self.batches, collate_fn=collate, worker_init_fn=start_worker, **options
        )

    @property
    def batches_per_epoch(self) -> int:
        """Of this process; the same for all."""
        return len(self.batches)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps."""
        return math.ceil(self.batches_per_epoch / self._accumulation)

    def rest_of_epoch(self, epoch: int, taken: int) -> Iterator[dict[str, Any]]:
        """The batches that `epoch` still has after so many, one read ahead, as accelerate's own loaders do.

        Raises:
            UserError: training cannot go on with this batch, see `reason_ahead`, and has not stopped before.
        """
        self.sampler.set_epoch(epoch)
        self.batches.taken = taken
        self.begin()
        try:
            device = self.accelerator.device
            batches = (send_to_device(batch, device, non_blocking=True) for batch in self._loader)
            batch = next(batches, None)
            self.reason_ahead = self._reason_to_stop(batch)
            while batch is not None:
                if self.reason_ahead is not None:
                    raise UserError(self.reason_ahead)
                following = next(batches, None)
                self.end_of_dataloader = following is None
                self.reason_ahead = self._reason_to_stop(following)
                self.faults = {fault.place: fault for fault in batch.pop("bad_pairs")} | self.faults
                yield batch
                batch = following
        finally:
            self.end()

    def _reason_to_stop(self, batch: Mapping[str, Any] | None) -> str | None:
        """Why nobody should train on a batch."""
        if batch is None or not batch["bad_pairs"]:
            return None
        reason = batch["bad_pairs"][0].reason
        if not self.skip_bad_pairs:
            return (
                f"{reason} To go on from the last checkpoint without such pairs, add --resume --on-bad-pair skip to "
                "the command; or mend it and start a new run."
            )
        if "source" not in batch:
            return f"{reason} Nor is any pair near it good, or at the start of other shards: look at that one."
        return None

    def reason_to_stop(self) -> str | None:
        """Why training cannot go on with the next batch of one of the processes; all of them must ask."""
        return next(filter(None, gather_object([self.reason_ahead])), None) if self.streamed else None

    def state_dict(self) -> dict[str, Any]:
        """What is this process's own."""
        return {"workers": max(1, self.workers), "faults": [asdict(fault) for fault in self.faults.values()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with another loader's.

        Raises:
            UserError: another number of workers, which would have read other rows.
        """
        if state["workers"] != max(1, self.workers):
            raise UserError(
                f"--num-workers {self.workers}: the streamed run was stopped with "
                f"{counted(state['workers'], 'worker')} to a process. Go on with --num-workers {state['workers']}."
            )
        self.faults = {(fault := Fault(**fields)).place: fault for fields in state["faults"]}


def make_validation_loader(
    accelerator: Accelerator, config: TrainingConfig, dataset: PairTensors, cache: RunCache | None = None
) -> Any:
    """Accelerate's sharding, whose `gather_for_metrics` leaves out the pairs that fill up the last batch."""
    in_order = EpochSampler(len(dataset), shuffle=False)
    kept = cache is not None and cache.mode != "off"
    if cache is not None:
        cache.add(dataset)
    # of kept pairs nothing is left to do that would be worth starting processes for, at every epoch
    options = _loader_options(accelerator, 0 if kept else worker_count(accelerator, config, streaming=False))
    return accelerator.prepare_data_loader(
        DataLoader(dataset, batch_size=config.batch_size, sampler=in_order, **options)
    )


def worker_count(accelerator: Accelerator, config: TrainingConfig, streaming: bool | None = None) -> int:
    """Processes that read and augment pairs for this one.

    On a CPU the step has use for all cores, and takes so long that reading in between does not show; a GPU is fed by
    all cores but one.
    """
    if config.num_workers is not None:
        return config.num_workers
    if config.streaming if streaming is None else streaming:
        return STREAM_WORKERS
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return 0 if accelerator.device.type == "cpu" else max(1, min(MOST_WORKERS, cpu_cores() // local - 1))


def _loader_options(accelerator: Accelerator, workers: int) -> dict[str, Any]:
    return dict(
        num_workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        generator=torch.Generator(),  # its own: starting workers must not advance the one that dropout uses
    )


def total_steps(config: TrainingConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of a whole run."""
    by_epochs = config.epochs * steps_per_epoch
    return by_epochs if config.max_steps is None else min(by_epochs, config.max_steps)


# --- what the run folder says about the pairs


class PairsOnRecord:
    """Keeps `bad_pairs.jsonl`, their count in `training_config.json` and `shards.json` of a run up to date.

    Every process calls the same methods. Bad pairs found before training are known to every process. Those met in a
    stream are kept by the process that met them, in its part of the checkpoint: a resumed run knows as many as it has
    read, and meets the later ones again.
    """

    def __init__(self, accelerator: Accelerator, pairs: PairSplits, loader: TrainLoader) -> None:
        self._accelerator, self._pairs, self._loader = accelerator, pairs, loader
        self._written: tuple[Fault, ...] = ()

    def start(self, run_folder: Path) -> None:
        """Write what is known at the start of a run, or where it goes on."""
        self._written = self._so_far()
        if self._accelerator.is_main_process:
            self._write(run_folder)
            if self._pairs.lengths is not None:
                _write_json(run_folder / SHARDS_NAME, {"rows": list(self._pairs.lengths)})

    def update(self, run_folder: Path) -> None:
        """Write and log what any process has met since."""
        before, self._written = set(self._written), self._so_far()
        new = [fault for fault in self._written if fault not in before]
        if not new or not self._accelerator.is_main_process:
            return
        for fault in new[:LISTED_FAULTS]:
            logger.warning("Left out: %s", fault.reason)
        logger.warning("%d bad pairs left out so far: %s", len(self._written), run_folder / BAD_PAIRS_NAME)
        self._write(run_folder)

    def _so_far(self) -> tuple[Fault, ...]:
        found = self._pairs.findings.faults
        if not self._loader.streamed or not self._loader.skip_bad_pairs:
            return found
        return each_once([*found, *gather_object(list(self._loader.faults.values()))])

    def _write(self, run_folder: Path) -> None:
        if self._written:
            write_bad_pairs(run_folder, self._written)
        else:  # of a run that was set back to before it met them
            (run_folder / BAD_PAIRS_NAME).unlink(missing_ok=True)
        content = json.loads((run_folder / TRAINING_CONFIG_NAME).read_text())
        content["dataset"]["left_out"] = len(self._written)
        _write_json(run_folder / TRAINING_CONFIG_NAME, content)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with write_aside(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
