"""What a trainer is built from: pairs, Accelerate, loaders, networks and losses, each from the config alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, parse_flag_from_env
from torch.utils.data import DataLoader

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.data.examine import Findings
from pix2pix_hub.data.pairs import PairSplits, load_pairs
from pix2pix_hub.data.sampling import ProcessBatches
from pix2pix_hub.data.shards import StreamPlan
from pix2pix_hub.data.stream_source import StreamedPairs, open_stream
from pix2pix_hub.data.streaming import PairStream
from pix2pix_hub.data.transforms import EpochSampler, PairTensors, PairTransform
from pix2pix_hub.errors import UserError
from pix2pix_hub.images import PixelFormat
from pix2pix_hub.losses import Pix2PixLoss
from pix2pix_hub.models import PatchGANDiscriminator
from pix2pix_hub.models.auto import GENERATORS, Generator
from pix2pix_hub.training.precision import resolve_mixed_precision
from pix2pix_hub.training.stream_loader import StreamLoader, log_bad_pair, refuse_bad_pair


def load_config_pairs(config: TrainingConfig, findings: Findings | None = None) -> PairSplits:
    """The pairs that `config` names; without `findings` each is decoded once, which one process does for all.

    Raises:
        UserError: see `pix2pix_hub.data.pairs.load_pairs`.
    """
    return load_pairs(config.dataset, **_pair_options(config), findings=findings)


def load_config_stream(config: TrainingConfig, state: PartialState) -> StreamedPairs:
    """The shards that `config` names; the main process counts their rows and looks at the first for all.

    Raises:
        UserError: see `pix2pix_hub.data.stream_source.open_stream`.
    """
    pairs = open_stream(config.dataset, **_pair_options(config)) if state.is_main_process else None
    lengths, findings = broadcast_object_list([pairs and pairs.lengths, pairs and pairs.findings])
    return pairs or open_stream(config.dataset, lengths=lengths, findings=findings, **_pair_options(config))


def _pair_options(config: TrainingConfig) -> dict[str, Any]:
    return dict(
        direction=config.direction,
        image_size=config.image_height_width,
        source_column=config.source_column,
        target_column=config.target_column,
        source_mode=config.source_mode,
        target_mode=config.target_mode,
        on_bad_pair=config.on_bad_pair,
        revision=config.dataset_revision,
        train_split=config.train_split,
        validation_split=config.validation_split,
        max_train_pairs=config.max_train_pairs,
        max_validation_pairs=config.max_validation_pairs,
    )


def load_pairs_together(config: TrainingConfig, state: PartialState) -> PairSplits:
    """`load_config_pairs` on every process of a launch: the first looks at the pairs and tells the others."""
    pairs = load_config_pairs(config) if state.is_main_process else None
    findings = broadcast_object_list([pairs.findings if pairs else None])[0]
    return pairs or load_config_pairs(config, findings)


def process_state() -> PartialState:
    """This process's place among those launched together.

    Accelerate joins CPU processes only where it is told that they use the CPU; left alone, two started by torchrun on a
    machine without GPU would each train a model of their own.
    """
    return PartialState(cpu=_use_cpu())


def _use_cpu() -> bool:
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def make_accelerator(config: TrainingConfig, run_folder: Path) -> Accelerator:
    """Accelerate, as the launcher's environment and `config` say.

    Raises:
        UserError: a precision this device cannot do, a tracker that is not installed.
    """
    for tracker in config.report_to:
        if find_spec(tracker) is None:
            raise UserError(f"--report-to {tracker} is not installed: pip install {tracker}, or leave it out.")
    # torch 2.15 renames the option below; accelerate 1.15 knows the old name only, which works until torch drops it
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    return Accelerator(
        cpu=_use_cpu(),
        mixed_precision=resolve_mixed_precision(config.mixed_precision, _use_cpu()),
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        log_with=list(config.report_to) or None,
        project_dir=run_folder,
        # Buffers are batch statistics that nothing reads and power iterations that agree by themselves; broadcasting
        # them would overwrite, in place, what the first of two forwards still needs for its backward.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


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


def make_train_loader(
    accelerator: Accelerator, config: TrainingConfig, dataset: PairTensors, sampler: EpochSampler
) -> Any:
    """This process's share of each epoch, on its device: over all processes every pair once.

    Raises:
        UserError: fewer pairs than processes.
    """
    batches = ProcessBatches(sampler, config.batch_size, accelerator.num_processes, accelerator.process_index)
    loader = DataLoader(dataset, batch_sampler=batches, **_loader_options(accelerator, config))
    return on_device(accelerator, loader)


def make_stream_loader(accelerator: Accelerator, config: TrainingConfig, pairs: StreamedPairs) -> StreamLoader:
    """This process's share of each epoch of a streamed set.

    Raises:
        UserError: fewer pairs, or fewer shards of unknown length, than processes.
    """
    places = (accelerator.num_processes, accelerator.process_index)
    plan = StreamPlan(pairs.spans, config.seed, config.batch_size, *places)
    transform = train_transform(config, pairs.formats)
    stream = PairStream(pairs.shards, plan, pairs.decoder.decode, transform, config.shuffle_buffer)
    on_bad_pair = log_bad_pair if config.on_bad_pair == "skip" else refuse_bad_pair
    return StreamLoader(accelerator, stream, config.num_workers, on_bad_pair)


def batches_per_epoch(loader: Any, pairs: PairSplits | StreamedPairs) -> int | None:
    """Of each process; a guess from the set's own metadata, or None, where shards have not been counted."""
    if not isinstance(loader, StreamLoader) or loader.dataset.plan.deal is not None:
        return len(loader)
    assert isinstance(pairs, StreamedPairs)
    plan = loader.dataset.plan
    return pairs.expected_pairs and math.ceil(pairs.expected_pairs / (plan.batch_size * plan.processes))


def on_device(accelerator: Accelerator, loader: DataLoader) -> Any:
    """Accelerate's loader around one that yields this process's share already."""
    return prepare_data_loader(loader, accelerator.device, 1, 0, put_on_device=True, dispatch_batches=False)


def make_validation_loader(accelerator: Accelerator, config: TrainingConfig, dataset: PairTensors) -> Any:
    """Accelerate's sharding, whose `gather_for_metrics` leaves out the pairs that fill up the last batch."""
    in_order = EpochSampler(len(dataset), shuffle=False)
    options = _loader_options(accelerator, config)
    return accelerator.prepare_data_loader(
        DataLoader(dataset, batch_size=config.batch_size, sampler=in_order, **options)
    )


def _loader_options(accelerator: Accelerator, config: TrainingConfig) -> dict[str, Any]:
    return dict(
        num_workers=config.num_workers,
        pin_memory=accelerator.device.type == "cuda",
        generator=torch.Generator(),  # its own: starting workers must not advance the one that dropout uses
    )


def make_networks(
    config: TrainingConfig, source_channels: int, target_channels: int
) -> tuple[Generator, PatchGANDiscriminator]:
    """Both networks with their initial weights."""
    generator = GENERATORS[config.generator_class](source_channels, target_channels, **config.generator_options())
    discriminator = PatchGANDiscriminator(source_channels + target_channels, **config.discriminator_options())
    return generator, discriminator


def make_loss(config: TrainingConfig, target_channels: int = 3) -> Pix2PixLoss:
    """Both objectives, weighted as `config` says.

    Raises:
        UserError: the feature loss on targets that VGG16 cannot look at.
    """
    if config.perceptual_weight and target_channels not in (1, 3):
        raise UserError(
            f"--perceptual-weight {config.perceptual_weight}: the target images have {target_channels} channels, and "
            "VGG16 knows 1 or 3. Leave it out."
        )
    return Pix2PixLoss(
        gan_mode=config.gan_loss,
        gan_weight=config.gan_weight,
        l1_weight=config.l1_weight,
        l2_weight=config.l2_weight,
        perceptual_weight=config.perceptual_weight,
        discriminator_weight=config.discriminator_weight,
    )
