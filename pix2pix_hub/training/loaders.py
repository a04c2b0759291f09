"""From the options to batches: pairs opened by all processes of a launch, and the loaders they come out of."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.data_loader import DataLoaderStateMixin
from accelerate.state import GradientState
from accelerate.utils import broadcast_object_list, gather_object, send_to_device
from torch.utils.data import DataLoader

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.data.cache import DevicePairs, KeepWhileLooking, Part, RunCache, plan_cache
from pix2pix_hub.data.decode import Fault, Findings, PairDataset, Place, each_once
from pix2pix_hub.data.order import BlockSampler, EpochSampler, ProcessBatches
from pix2pix_hub.data.pairs import PairSplits, load_pairs
from pix2pix_hub.data.stream import ShardPlaces, StreamTensors, open_stream, start_worker
from pix2pix_hub.data.transforms import PairTensors, PairTransform, collate
from pix2pix_hub.devices import check_alike, cpu_cores, on_any_process, sharing_failures
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.util import UserError, counted, read_object

STREAM_WORKERS = 2  # where none are asked for; on every machine, since the order of a stream's pairs depends on it
MOST_WORKERS = 8  # that are started unasked
SHARED_MEMORY = Path("/dev/shm")  # 64 MB in many containers; a worker whose batch does not fit is killed
BATCHES_AHEAD, BATCHES_TAKEN = 2, 2  # of each worker, as `DataLoader` has them; of the process that trains
SHARDS_NAME = "shards.json"  # in a run folder: rows of each shard that it is streamed from


# --- pairs


def open_together(config: TrainingConfig, state: PartialState, run_folder: Path) -> PairSplits:
    """The pairs that `config` names, on every process of a launch: the first looks at them and tells the others.

    Raises:
        UserError: see `load_pairs` and `open_stream` in `pix2pix_hub.data.pairs`; a machine has other pairs.
    """

    def keep(parts: Sequence[PairDataset]) -> KeepWhileLooking | None:
        named = _cache_parts(config, *parts)
        plan = plan_cache(config, named)
        return KeepWhileLooking(plan, list(named.values())) if plan.mode == "memory" and not config.dry_run else None

    def open_pairs(lengths: Sequence[int] | None, findings: Findings | None = None) -> PairSplits:
        if config.streaming:
            return open_stream(config, config.shuffle_buffer, lengths=lengths, findings=findings)
        return load_pairs(config, findings=findings, keep=keep)

    pairs = None
    with sharing_failures():
        if state.is_main_process:
            pairs = open_pairs(read_object(run_folder / SHARDS_NAME).get("rows"))
    told = broadcast_object_list([pairs and pairs.lengths, pairs and pairs.findings])
    with sharing_failures():
        pairs = pairs or open_pairs(*told)
    check_alike(
        "fingerprint of the pairs", pairs.fingerprint, f"give all machines the same --dataset {config.dataset}."
    )
    return pairs


def make_cache(accelerator: Accelerator, config: TrainingConfig, pairs: PairSplits) -> RunCache:
    """What `--cache` keeps of `pairs`; of a stream nothing.

    Raises:
        UserError: there is no room for what was asked for.
    """
    keeper, plan = pairs.keeper, None
    with sharing_failures():
        if accelerator.is_main_process:
            parts = {} if pairs.lengths is not None else _cache_parts(config, pairs.train, pairs.validation)
            plan = keeper.plan if keeper is not None and keeper.kept else plan_cache(config, parts)
    return RunCache(broadcast_object_list([plan])[0], keeper.kept if keeper is not None else ())


def _cache_parts(config: TrainingConfig, train: PairDataset, validation: PairDataset) -> dict[str, Part]:
    return {
        "training": (train, make_transform(config, train.formats, augment=True)),
        "validation": (validation, make_transform(config, validation.formats, augment=False)),
    }


def make_transform(config: TrainingConfig, formats: Mapping[str, PixelFormat], *, augment: bool) -> PairTransform:
    """What training pairs go through, or without `augment` validation pairs and whatever the model will be used on.

    Raises:
        UserError: colour jitter on pixels that have no colour.
    """
    options = ("flip_probability", "rotation_degrees", "jitter_scale", "color_jitter", "color_jitter_side", "seed")
    return PairTransform(
        config.image_height_width,
        augment=augment,
        resize=config.resize,
        formats=formats,
        **{name: getattr(config, name) for name in options if augment},
    )


# --- loaders


class TrainLoader(DataLoaderStateMixin):
    """This process's training batches, map-style or streamed, epoch by epoch: over all processes every pair once.

    What a batch holds is drawn from (seed, epoch), so the number of batches taken is all that resuming needs. Bad pairs
    met in a stream are this process's own, and so is its number of workers, which the order of a stream depends on:
    both are kept in checkpoints.

    Raises:
        UserError: fewer pairs than processes; too little shared memory.
    """

    def __init__(
        self, accelerator: Accelerator, config: TrainingConfig, pairs: PairSplits, cache: RunCache | None = None
    ) -> None:
        self.accelerator = accelerator
        self.gradient_state = GradientState()
        self.streamed = pairs.lengths is not None
        self._skip_bad_pairs = config.on_bad_pair == "skip"
        self._found_before = pairs.findings.faults
        self.faults: dict[Place, Fault] = {}  # pairs left out, in all epochs
        self.reason_ahead: str | None = None  # why no process can go on with the next batch
        transform = make_transform(config, pairs.formats, augment=True)
        self.workers = _worker_count(accelerator, config, transform, streamed=self.streamed)
        self._asked_for_workers = bool(config.num_workers)
        self.sampler: EpochSampler
        if self.streamed:
            places = pairs.train.indices
            assert isinstance(places, ShardPlaces)
            blocks = [places.blocks(number, pairs.train.rows.block) for number in range(len(places.stretches))]
            self.sampler = BlockSampler(blocks, max(1, self.workers), seed=config.seed)
            self.dataset: PairTensors = StreamTensors(pairs.train, transform, in_model_range=False)
        else:
            self.sampler = EpochSampler(len(pairs.train), seed=config.seed)
            self.dataset = PairTensors(pairs.train, transform, in_model_range=False)
            if cache is not None:
                cache.sets.append(self.dataset)
        shares = accelerator.num_processes, accelerator.process_index
        self.batches = ProcessBatches(self.sampler, config.batch_size, *shares)
        options = _loader_options(accelerator, self.workers) | {"persistent_workers": self.workers > 0}
        self._loader = DataLoader(
            self.dataset, batch_sampler=self.batches, collate_fn=collate, worker_init_fn=start_worker, **options
        )

    def __len__(self) -> int:
        """Batches of an epoch; of this process, and the same for all."""
        return len(self.batches)

    def rest_of_epoch(self, epoch: int, taken: int) -> Iterator[dict[str, Any]]:
        """The batches that `epoch` still has after so many, one read ahead, as accelerate's own loaders do.

        Raises:
            UserError: training cannot go on with this batch, see `reason_ahead`, and has not stopped before.
        """
        self.sampler.set_epoch(epoch)
        self.batches.taken = taken
        self.begin()
        try:
            batches = self._sent()
            batch = self._read(batches)
            while batch is not None and self.reason_ahead is None:
                following = self._read(batches)
                self.end_of_dataloader = following is None and self.reason_ahead is None
                self.faults = {fault.place: fault for fault in batch.pop("bad_pairs")} | self.faults
                yield batch
                batch = following
            if self.reason_ahead is not None:
                raise UserError(self.reason_ahead)
        finally:
            self.end()

    @cached_property
    def _on_device(self) -> DevicePairs | None:
        """The pairs, where no workers need to send them."""
        return None if self._asked_for_workers else DevicePairs.where_they_fit(self.dataset, self.accelerator.device)

    def _sent(self) -> Iterator[dict[str, Any]]:
        """The batches from `batches.taken` on, on the device and there converted to [-1, 1]."""
        device, kept = self.accelerator.device, self._on_device
        sent: Iterator[dict[str, Any]]
        if kept is not None:
            sent = ({**kept.batch(keys), "bad_pairs": []} for keys in self.batches)
        else:
            sent = (send_to_device(batch, device, non_blocking=True) for batch in self._loader)
        for batch in sent:
            yield batch | (self.dataset.transform.to_model_range(batch) if "source" in batch else {})

    def _read(self, batches: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
        """The next batch, None at the end; all processes learn where one of them cannot go on with its own."""
        batch = reason = None
        try:
            batch = next(batches, None)
            reason = self._reason_to_stop(batch)
        except (UserError, OSError, RuntimeError) as error:  # a file that is gone, a worker that was killed
            lines = str(error).strip().splitlines() or [repr(error)]  # a worker's has the traceback before it
            reason = f"the next pairs cannot be read ({lines[-1]}): mend that, then add --resume to the command."
        if on_any_process(reason is not None):
            reason = next(filter(None, gather_object([reason])))
        self.reason_ahead = reason
        return batch

    def _reason_to_stop(self, batch: Mapping[str, Any] | None) -> str | None:
        """Why nobody should train on a batch."""
        if batch is None or not batch["bad_pairs"]:
            return None
        reason = batch["bad_pairs"][0].reason
        if not self._skip_bad_pairs:
            return (
                f"{reason} To go on from the last checkpoint without such pairs, add --resume --on-bad-pair skip to "
                "the command; or mend it and start a new run."
            )
        if "source" not in batch:
            return f"{reason} Nor is any pair near it good, or at the start of other shards: look at that one."
        return None

    def bad_pairs(self) -> tuple[Fault, ...]:
        """Those that were found before training, and those that any process has met since; all of them must ask."""
        if not self.streamed or not self._skip_bad_pairs:
            return self._found_before
        return each_once([*self._found_before, *gather_object(list(self.faults.values()))])

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
    batch_size = dataset.validation_batch(config.batch_size, accelerator.num_processes)
    in_order = EpochSampler(len(dataset), shuffle=False)
    kept = cache is not None and cache.plan.mode != "off"
    if cache is not None:
        cache.sets.append(dataset)
    # of kept pairs nothing is left to do that would be worth starting processes for, at every epoch
    workers = 0 if kept else _worker_count(accelerator, config, dataset.transform, streamed=False)
    fitting = _fitting_workers(accelerator, batch_size * dataset.transform.nbytes)
    options = _loader_options(accelerator, min(workers, fitting))
    return accelerator.prepare_data_loader(DataLoader(dataset, batch_size, sampler=in_order, **options))


def _worker_count(accelerator: Accelerator, config: TrainingConfig, transform: PairTransform, *, streamed: bool) -> int:
    """Processes that read and augment pairs for this one.

    On a CPU the step has use for all cores, and takes so long that reading in between does not show; a GPU is fed by
    all cores but one.

    Raises:
        UserError: shared memory has no room for the batches of so many.
    """
    fitting = _fitting_workers(accelerator, config.batch_size * transform.nbytes)
    if config.num_workers is None and not streamed:
        return 0 if accelerator.device.type == "cpu" else min(max(1, min(MOST_WORKERS, cpu_cores() - 1)), fitting)
    workers = STREAM_WORKERS if config.num_workers is None else config.num_workers
    if workers > fitting:
        size = config.batch_size * transform.nbytes / 1e6
        raise UserError(
            f"--num-workers {workers}: they send batches of {size:.2g} MB through {SHARED_MEMORY}, which has no room "
            f"for so many. Type --num-workers {fitting}, or give the container more (docker run --shm-size 2g)."
        )
    return workers


def _fitting_workers(accelerator: Accelerator, batch_bytes: int) -> int:
    """Workers of each process whose batches, all that may be on their way at once, fit into shared memory."""
    if not SHARED_MEMORY.is_dir():
        return sys.maxsize
    batches = shutil.disk_usage(SHARED_MEMORY).free // (batch_bytes * accelerator.num_processes)
    return max(0, batches - BATCHES_TAKEN) // BATCHES_AHEAD


def _loader_options(accelerator: Accelerator, workers: int) -> dict[str, Any]:
    return dict(
        num_workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        generator=torch.Generator(),  # its own: starting workers must not advance the one that dropout uses
    )
