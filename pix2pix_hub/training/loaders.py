"""From the options to batches: pairs opened by all processes of a launch, and the loaders they come out of."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from accelerate import Accelerator, PartialState, skip_first_batches
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch.utils.data import DataLoader

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.data.pairs import PairSplits, load_pairs
from pix2pix_hub.data.sampling import ProcessBatches
from pix2pix_hub.data.shards import StreamPlan
from pix2pix_hub.data.stream_source import StreamedPairs, open_stream
from pix2pix_hub.data.streaming import PairStream
from pix2pix_hub.data.transforms import EpochSampler, PairTensors, PairTransform
from pix2pix_hub.devices import cpu_cores
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.training.caching import RunCache, plan_cache
from pix2pix_hub.training.stream_loader import StreamLoader
from pix2pix_hub.util import UserError

STREAM_WORKERS = 2  # where none are asked for; on every machine, since the order of a stream's pairs depends on it
MOST_WORKERS = 8  # that are started unasked


class TrainLoader:
    """This process's training batches, map-style or streamed, epoch by epoch.

    Raises:
        UserError: fewer pairs, or fewer shards of unknown length, than processes.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: TrainingConfig,
        pairs: PairSplits | StreamedPairs,
        cache: RunCache | None = None,
    ) -> None:
        self._accumulation = config.gradient_accumulation_steps
        self.stream: StreamLoader | None = None  # has a position to be kept in checkpoints
        self.batches_per_epoch: int | None  # None: nobody knows
        if isinstance(pairs, StreamedPairs):
            self.stream = self.loader = make_stream_loader(accelerator, config, pairs)
            self.batches_per_epoch = _batches_of_stream(self.stream, pairs)
        else:
            self._sampler = EpochSampler(len(pairs.train), seed=config.seed)
            self.loader = make_map_loader(accelerator, config, pairs, self._sampler, cache)
            self.batches_per_epoch = len(self.loader)

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps; None: nobody knows."""
        return self.batches_per_epoch and math.ceil(self.batches_per_epoch / self._accumulation)

    def rest_of_epoch(self, epoch: int, taken: int) -> Iterable[dict[str, Tensor]]:
        """The batches that `epoch` still has after so many; a stream knows where it stands by itself."""
        self.loader.set_epoch(epoch)
        if self.stream is not None:
            return self.stream
        self._sampler.set_epoch(epoch)
        return skip_first_batches(self.loader, taken) if taken else self.loader

    def reason_to_stop(self) -> str | None:
        """Why training cannot go on with the next batch of one of the processes; all of them must ask."""
        if self.stream is None:
            return None
        return next(filter(None, gather_object([self.stream.reason_ahead])), None)


def _batches_of_stream(loader: StreamLoader, pairs: StreamedPairs) -> int | None:
    """A guess from the set's own metadata, or None, where shards have not been counted."""
    plan = loader.dataset.plan
    if plan.deal is not None:
        return len(loader)
    return pairs.expected_pairs and math.ceil(pairs.expected_pairs / (plan.batch_size * plan.processes))


def open_together(config: TrainingConfig, state: PartialState) -> PairSplits | StreamedPairs:
    """The pairs that `config` names, on every process of a launch: the first looks at them and tells the others.

    Raises:
        UserError: see `pix2pix_hub.data.pairs.load_pairs` and `pix2pix_hub.data.stream_source.open_stream`.
    """
    if config.streaming:
        stream = open_stream(config) if state.is_main_process else None
        lengths, findings = broadcast_object_list([stream and stream.lengths, stream and stream.findings])
        return stream or open_stream(config, lengths=lengths, findings=findings)
    pairs = load_pairs(config) if state.is_main_process else None
    findings = broadcast_object_list([pairs and pairs.findings])[0]
    return pairs or load_pairs(config, findings=findings)


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


def make_cache(accelerator: Accelerator, config: TrainingConfig, pairs: PairSplits | StreamedPairs) -> RunCache:
    """What `--cache` keeps of `pairs`; of a stream nothing.

    Raises:
        UserError: there is no room for what was asked for.
    """
    if isinstance(pairs, StreamedPairs):
        return plan_cache(accelerator, config, {})
    parts = {
        "training": (pairs.train, train_transform(config, pairs.formats)),
        "validation": (pairs.validation, evaluation_transform(config, pairs.formats)),
    }
    return plan_cache(accelerator, config, parts)


def make_map_loader(
    accelerator: Accelerator,
    config: TrainingConfig,
    pairs: PairSplits,
    sampler: EpochSampler,
    cache: RunCache | None = None,
) -> Any:
    """This process's share of each epoch, on its device: over all processes every pair once.

    Raises:
        UserError: fewer pairs than processes.
    """
    dataset = PairTensors(pairs.train, train_transform(config, pairs.formats))
    if cache is not None:
        cache.add(dataset)
    batches = ProcessBatches(sampler, config.batch_size, accelerator.num_processes, accelerator.process_index)
    workers = worker_count(accelerator, config)
    options = _loader_options(accelerator, workers) | {"persistent_workers": workers > 0}  # epochs can be short
    loader = DataLoader(dataset, batch_sampler=batches, **options)
    # Accelerate's loader around one that yields this process's share already
    return prepare_data_loader(
        loader, accelerator.device, 1, 0, put_on_device=True, dispatch_batches=False, non_blocking=True
    )


def make_stream_loader(accelerator: Accelerator, config: TrainingConfig, pairs: StreamedPairs) -> StreamLoader:
    """This process's share of each epoch of a streamed set.

    Raises:
        UserError: fewer pairs, or fewer shards of unknown length, than processes.
    """
    places = (accelerator.num_processes, accelerator.process_index)
    plan = StreamPlan(pairs.spans, config.seed, config.batch_size, *places)
    transform = train_transform(config, pairs.formats)
    stream = PairStream(pairs.shards, plan, pairs.decoder.decode, transform, config.shuffle_buffer)
    workers = STREAM_WORKERS if config.num_workers is None else config.num_workers
    return StreamLoader(accelerator, stream, workers, skip_bad_pairs=config.on_bad_pair == "skip")


def make_validation_loader(
    accelerator: Accelerator, config: TrainingConfig, dataset: PairTensors, cache: RunCache | None = None
) -> Any:
    """Accelerate's sharding, whose `gather_for_metrics` leaves out the pairs that fill up the last batch."""
    in_order = EpochSampler(len(dataset), shuffle=False)
    kept = cache is not None and cache.mode != "off"
    if cache is not None:
        cache.add(dataset)
    # of kept pairs nothing is left to do that would be worth starting processes for, at every epoch
    options = _loader_options(accelerator, 0 if kept else worker_count(accelerator, config))
    return accelerator.prepare_data_loader(
        DataLoader(dataset, batch_size=config.batch_size, sampler=in_order, **options)
    )


def worker_count(accelerator: Accelerator, config: TrainingConfig) -> int:
    """Processes that read and augment map-style pairs for this one.

    On a CPU the step has use for all cores, and takes so long that reading in between does not show; a GPU is fed by
    all cores but one.
    """
    if config.num_workers is not None:
        return config.num_workers
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return 0 if accelerator.device.type == "cpu" else max(1, min(MOST_WORKERS, cpu_cores() // local - 1))


def _loader_options(accelerator: Accelerator, workers: int) -> dict[str, Any]:
    return dict(
        num_workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        generator=torch.Generator(),  # its own: starting workers must not advance the one that dropout uses
    )


def total_steps(config: TrainingConfig, steps_per_epoch: int | None) -> int:
    """Optimizer steps of a whole run.

    Raises:
        UserError: how long to train cannot be told.
    """
    if steps_per_epoch is None:
        if config.max_steps is None:
            raise UserError(
                f"--streaming: how many pairs {config.dataset} has cannot be told without reading all of it. "
                "Say with --max-steps how long to train."
            )
        return config.max_steps
    by_epochs = config.epochs * steps_per_epoch
    return by_epochs if config.max_steps is None else min(by_epochs, config.max_steps)
