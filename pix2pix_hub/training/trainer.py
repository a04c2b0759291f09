"""The training loop: pix2pix on Accelerate, from pairs to a run folder with checkpoints and exports.

Run it with `accelerate launch train_accelerate.py`, or from Python:

    Pix2PixTrainer(preset_config("demo")).train()
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState, skip_first_batches
from accelerate.utils import broadcast_object_list, set_seed
from torch import Tensor

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.data.examine import write_bad_pairs
from pix2pix_hub.data.pairs import PairSplits
from pix2pix_hub.data.stream_source import StreamedPairs
from pix2pix_hub.data.transforms import EpochSampler, PairTensors
from pix2pix_hub.errors import UserError
from pix2pix_hub.images import save_grid
from pix2pix_hub.metrics import HIGHER_IS_BETTER, ImageMetrics
from pix2pix_hub.models.auto import Generator
from pix2pix_hub.training.checkpoint import (
    Progress,
    Stateful,
    load_checkpoint,
    newest_sound_checkpoint,
    remove_after,
    save_checkpoint,
)
from pix2pix_hub.training.export import TRAINING_CONFIG_NAME, parameter_count, preprocessor_config, write_export
from pix2pix_hub.training.image_buffer import ImageBuffer
from pix2pix_hub.training.precision import set_cpu_threads
from pix2pix_hub.training.report import MetricsLog, Reporter
from pix2pix_hub.training.run_folder import (
    check_same_pairs,
    check_same_run,
    claim_run_folder,
    new_run_folder,
    run_to_resume,
    stored_config,
    write_training_config,
)
from pix2pix_hub.training.schedule import build_schedule
from pix2pix_hub.training.setup import (
    batches_per_epoch,
    evaluation_transform,
    load_config_stream,
    load_pairs_together,
    make_accelerator,
    make_loss,
    make_networks,
    make_stream_loader,
    make_train_loader,
    make_validation_loader,
    process_state,
    train_transform,
)
from pix2pix_hub.training.signals import StopSignals
from pix2pix_hub.training.step import GANStep, average_of
from pix2pix_hub.training.stream_loader import StreamLoader

logger = logging.getLogger(__name__)

STEPS_BETWEEN_STOPS = 10  # of several GPU processes, at which they ask each other whether to stop
SECONDS_BETWEEN_CHECKPOINTS = 60.0  # where --checkpoint-every is not given, at the end of an epoch


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended: its folder, the last validation metrics, and the signal that stopped it early, if any."""

    run_folder: Path
    metrics: dict[str, float]
    step: int
    epoch: int
    stop_signal: int | None = None


class Pix2PixTrainer:
    """Trains generator and discriminator as `config` says; every process of a launch makes one.

    Args:
        config: all options; `config.resume` goes on with a run.
        pairs: what to train on; None: loads `config.dataset`.
        command: the command line, recorded in `training_config.json`.

    Raises:
        UserError: something the person can mend: data, options, folder. Nothing has been written then.
    """

    def __init__(
        self, config: TrainingConfig, pairs: PairSplits | StreamedPairs | None = None, command: str | None = None
    ) -> None:
        state = process_state()
        self.run_folder = self._find_run_folder(config, state)
        stored = stored_config(self.run_folder) if config.resume else None
        if stored is not None:
            check_same_run(stored, config)
        load = load_config_stream if config.streaming else load_pairs_together
        self.pairs: PairSplits | StreamedPairs = pairs if pairs is not None else load(config, state)
        if stored is not None:
            check_same_pairs(self.run_folder, self.pairs.fingerprint)

        self.config = config
        self.command = command
        self.accelerator = make_accelerator(config, self.run_folder)
        self.cpu_threads = set_cpu_threads(config.cpu_threads, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        set_seed(config.seed)
        self.progress = Progress()
        self._learning_rate = config.learning_rate  # of the newest step
        self.reporter = Reporter(self.accelerator, self.run_folder, self.progress)
        self._build_loaders()
        self._build_networks()
        set_seed(config.seed, device_specific=True)  # from here on dropout differs between processes

    # --- building ---

    @staticmethod
    def _find_run_folder(config: TrainingConfig, state: PartialState) -> Path:
        find = run_to_resume(config.output_dir) if config.resume else new_run_folder(config)
        return Path(broadcast_object_list([str(find)])[0])  # a race between processes could number it differently

    def _build_loaders(self) -> None:
        config, accelerator, pairs = self.config, self.accelerator, self.pairs
        formats = pairs.formats
        self.validation_set = PairTensors(pairs.validation, evaluation_transform(config, formats))
        self.validation_loader = make_validation_loader(accelerator, config, self.validation_set)
        self.train_loader: Any
        if isinstance(pairs, StreamedPairs):
            self.train_loader = make_stream_loader(accelerator, config, pairs)
        else:
            self.sampler = EpochSampler(len(pairs.train), seed=config.seed)
            training_set = PairTensors(pairs.train, train_transform(config, formats))
            self.train_loader = make_train_loader(accelerator, config, training_set, self.sampler)
        self.total_steps = self._count_steps(batches_per_epoch(self.train_loader, pairs))

    def _count_steps(self, batches: int | None) -> int:
        """Optimizer steps of the whole run."""
        config = self.config
        if batches is None:
            if config.max_steps is None:
                raise UserError(
                    f"--streaming: how many pairs {config.dataset} has cannot be told without reading all of it. "
                    "Say with --max-steps how long to train."
                )
            return config.max_steps
        by_epochs = config.epochs * math.ceil(batches / config.gradient_accumulation_steps)
        return by_epochs if config.max_steps is None else min(by_epochs, config.max_steps)

    def _build_networks(self) -> None:
        config, accelerator = self.config, self.accelerator
        source, target = (self.pairs.formats[side].channels for side in ("source", "target"))
        self.generator, self.discriminator = make_networks(config, source, target)
        self.average = average_of(self.generator, config.ema_decay).to(accelerator.device) if config.ema_decay else None
        optimizers = [
            torch.optim.Adam(network.parameters(), config.learning_rate, (config.beta1, config.beta2), fused=True)
            for network in (self.generator, self.discriminator)
        ]
        decay_steps = round(self.total_steps * (1 - config.constant_fraction))
        self.schedules = [build_schedule(optimizer, self.total_steps, decay_steps) for optimizer in optimizers]
        self.loss = make_loss(config, target).to(accelerator.device)
        self.buffer = ImageBuffer(config.buffer_size, seed=config.seed + accelerator.process_index)
        generator, discriminator, generator_optimizer, discriminator_optimizer = accelerator.prepare(
            self.generator, self.discriminator, *optimizers
        )
        self.step = GANStep(
            accelerator,
            generator,
            discriminator,
            generator_optimizer,
            discriminator_optimizer,
            loss=self.loss,
            buffer=self.buffer,
            average=self.average,
            max_grad_norm=config.max_grad_norm,
        )
        registered = [self.progress, *self.schedules, *([] if self.average is None else [self.average])]
        accelerator.register_for_checkpointing(*registered)

    @property
    def _own(self) -> dict[str, Stateful]:
        """What a checkpoint holds of each process."""
        own: dict[str, Stateful] = {"image_buffer": self.buffer}
        if isinstance(self.train_loader, StreamLoader):
            own["stream"] = self.train_loader
        return own

    @property
    def parameter_counts(self) -> dict[str, int]:
        """Trainable values of each network."""
        return {
            "generator": parameter_count(self.generator),
            "discriminator": parameter_count(self.discriminator),
        }

    @property
    def exported_generator(self) -> Generator:
        """The network that is validated and exported: the moving average, or the trained one with `--ema-decay 0`."""
        if self.average is None:
            return self.generator
        assert isinstance(self.average.module, Generator)
        return self.average.module

    def describe(self) -> str:
        """What is trained on what, with what: several lines for a person."""
        config, accelerator = self.config, self.accelerator
        counts = ", ".join(f"{name} {count:,} parameters" for name, count in self.parameter_counts.items())
        threads = f", {self.cpu_threads} threads" if accelerator.device.type == "cpu" else ""
        return "\n".join(
            [
                f"pairs      {self.pairs.description}",
                f"networks   {counts}",
                f"device     {accelerator.num_processes} x {accelerator.device.type}{threads}, "
                f"mixed precision: {accelerator.mixed_precision}",
                f"length     {self.total_steps} steps, {config.epochs} epochs, batch size {config.batch_size} x "
                f"{accelerator.num_processes} x {config.gradient_accumulation_steps}",
                f"run        {self.run_folder}",
            ]
        )

    # --- the loop ---

    def train(self) -> TrainingResult:
        """Train to the end, or until a signal or early stopping; write the exports.

        Raises:
            TrainingDiverged: a loss is NaN or infinite.
            UserError: a checkpoint could not be written or does not fit.
        """
        self._start()
        with StopSignals() as self._signals, self.reporter.progress_bar(self.total_steps):
            while not self._finished():
                losses = self.train_epoch()
                if self._stop_requested():
                    break
                self._end_epoch(losses, self.validate())
            self._checkpoint()
            self._export("model")
        self.accelerator.end_training()
        progress = self.progress
        return TrainingResult(self.run_folder, progress.metrics, progress.step, progress.epoch, self._signals.received)

    def train_epoch(self) -> dict[str, float]:
        """Train to the end of the current epoch (of the steps, or to a stop signal); the mean of each loss."""
        progress = self.progress
        if progress.step >= self.total_steps:  # resumed between the last step and its validation
            return progress.epoch_means()
        self.generator.train()
        self.discriminator.train()
        self.reporter.start_clock()
        for batch in self._rest_of_epoch():
            losses = self.step(batch["source"], batch["target"])
            progress.batch += 1
            self.reporter.add(progress.step + 1, losses)
            if not self.accelerator.sync_gradients:
                continue
            progress.step += 1
            self._learning_rate = float(self.schedules[0].get_last_lr()[0])
            for schedule in self.schedules:
                schedule.step()
            self.reporter.advance()
            last = self.accelerator.gradient_state.end_of_dataloader or progress.step == self.total_steps
            if progress.step % self.config.log_every == 0 or last:
                self._fetch_losses()
            every = self.config.checkpoint_every
            if every and progress.step % every == 0 and not last:
                self._checkpoint()
            if progress.step == self.total_steps or self._stop_requested():
                break
        return progress.epoch_means()

    def _rest_of_epoch(self) -> Iterable[dict[str, Tensor]]:
        """The batches that the epoch under way still has."""
        progress, loader = self.progress, self.train_loader
        loader.set_epoch(progress.epoch)
        if isinstance(loader, StreamLoader):
            return loader  # which knows where it stands
        self.sampler.set_epoch(progress.epoch)
        return skip_first_batches(loader, progress.batch) if progress.batch else loader

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Both losses and the image metrics of the exported generator on the validation pairs, over all processes."""
        generator = self.exported_generator.eval()
        self.discriminator.eval()
        metrics = ImageMetrics()
        sums = torch.zeros(3, device=self.accelerator.device)  # d_loss, g_loss, batches
        for batch in self.validation_loader:
            source, target = batch["source"], batch["target"]
            with self.accelerator.autocast():
                generated = generator(source).float()
                real_logits, fake_logits = (
                    self.discriminator(torch.cat([source, image], dim=1)) for image in (target, generated)
                )
            d_loss = self.loss.discriminator_loss(real_logits, fake_logits)
            g_loss = self.loss.generator_loss(fake_logits, generated, target)["total"]
            sums += torch.stack([d_loss, g_loss, torch.ones_like(d_loss)])
            metrics.update(*self.accelerator.gather_for_metrics((generated, target)))
        d_sum, g_sum, batches = self.accelerator.reduce(sums).tolist()
        return {"d_loss": d_sum / batches, "g_loss": g_sum / batches, **metrics.compute()}

    # --- phases of the loop ---

    def _start(self) -> None:
        """Create the run folder, or go on where the newest sound checkpoint left off."""
        self._claim_folder()
        checkpoint = newest_sound_checkpoint(self.run_folder) if self.config.resume else None
        self.accelerator.wait_for_everyone()  # all have looked
        if self.accelerator.is_main_process:
            remove_after(self.run_folder, checkpoint)
            self._write_config()
        self.accelerator.wait_for_everyone()
        if checkpoint is not None:
            load_checkpoint(self.accelerator, checkpoint, self._own)
            logger.info("Resuming from %s: epoch %d, step %d.", checkpoint, self.progress.epoch + 1, self.progress.step)
            if self._finished():
                logger.info("The run is finished: give a larger --epochs (or --max-steps) to train on.")
        elif self.config.resume:
            logger.info("%s has no checkpoint yet: starting at step 0.", self.run_folder)
        self.reporter.start(self.config.to_dict())
        self._checkpointed = time.monotonic()

    def _claim_folder(self) -> None:
        """Make the run folder; of two runs that start at once, each gets a number of its own."""
        claimed = [str(claim_run_folder(self.config, self.run_folder)) if self.accelerator.is_main_process else ""]
        self.run_folder = Path(broadcast_object_list(claimed)[0])
        self.reporter.log = MetricsLog(self.run_folder)
        self.accelerator.project_configuration.set_directories(str(self.run_folder))

    def _write_config(self) -> None:
        pairs = self.pairs
        facts = {
            "command": self.command,
            "dataset": {
                "id": pairs.dataset,
                "pairs": pairs.description,
                "fingerprint": pairs.fingerprint,
                "left_out": len(pairs.findings.faults),
            },
            "mixed_precision": self.accelerator.mixed_precision,
            "processes": self.accelerator.num_processes,
            "device": self.accelerator.device.type,
            "parameters": self.parameter_counts,
        }
        write_training_config(self.run_folder, self.config, facts)
        if pairs.findings.faults:
            write_bad_pairs(self.run_folder, pairs.findings.faults)

    def _stop_requested(self) -> bool:
        """Whether a signal came to any process; asked at the same step by all of them."""
        received = self._signals.received is not None
        if self.accelerator.num_processes == 1:
            return received
        if self.accelerator.device.type != "cpu" and self.progress.step % STEPS_BETWEEN_STOPS:
            return False  # asking makes a GPU wait
        return bool(self.accelerator.reduce(torch.tensor(float(received), device=self.accelerator.device)) > 0)

    def _finished(self) -> bool:
        """All steps taken and validated, or early stopping."""
        progress, patience = self.progress, self.config.early_stopping_patience
        if patience and progress.epoch - progress.best_epoch >= patience:
            logger.info("Stopping early: no better %s for %d epochs.", self.config.best_metric, patience)
            return True
        return progress.step >= self.total_steps and progress.batch == 0

    def _end_epoch(self, losses: dict[str, float], metrics: dict[str, float]) -> None:
        """Log, draw and export what the epoch brought; take a checkpoint when one is due."""
        progress = self.progress
        progress.epoch += 1
        progress.batch = 0
        progress.epoch_sums = {}
        progress.metrics = metrics
        entry = {"step": progress.step, "epoch": progress.epoch, **metrics}
        self.reporter.record("validation", entry | {f"train_{name}": value for name, value in losses.items()})
        if self.accelerator.is_main_process:
            self._save_samples(self._samples_path())
            self.reporter.log.draw_curves()
        logger.info(
            "Epoch %d: L1 %.4f, PSNR %.2f dB, SSIM %.3f; D loss %.3f.",
            *(progress.epoch, metrics["l1"], metrics["psnr"], metrics["ssim"], losses.get("d_loss", math.nan)),
        )
        value, best = metrics[self.config.best_metric], progress.best_value
        if best is None or (value > best if HIGHER_IS_BETTER[self.config.best_metric] else value < best):
            progress.best_value, progress.best_epoch = value, progress.epoch
            self._export("model_best")
        if self._checkpoint_due():
            self._checkpoint()

    def _checkpoint_due(self) -> bool:
        every = self.config.checkpoint_every
        if every:
            return self.progress.step % every == 0
        late = time.monotonic() - self._checkpointed > SECONDS_BETWEEN_CHECKPOINTS
        return bool(broadcast_object_list([late])[0])

    def _fetch_losses(self) -> None:
        """Look at the losses since the last call, before anything made with them is kept.

        Raises:
            TrainingDiverged: one is NaN or infinite.
        """
        images_per_batch = self.config.batch_size * self.accelerator.num_processes
        self.reporter.fetch(self._learning_rate, images_per_batch)

    def _checkpoint(self) -> None:
        self._fetch_losses()
        save_checkpoint(self.accelerator, self.run_folder, self.progress.step, self._own, self.config.keep_checkpoints)
        self._checkpointed = time.monotonic()

    @torch.no_grad()
    def _sample_rows(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(source, generated, target) of the first validation pairs."""
        generator = self.exported_generator.eval()
        rows = []
        for index in range(min(self.config.sample_count, len(self.validation_set))):
            pair = self.validation_set[index]
            source, target = (pair[side].to(self.accelerator.device) for side in ("source", "target"))
            with self.accelerator.autocast():
                generated = generator(source[None])[0].float()
            rows.append((source, generated, target))
        return rows

    def _save_samples(self, path: Path) -> None:
        formats = self.pairs.formats
        save_grid(self._sample_rows(), path, [formats["source"], formats["target"], formats["target"]])

    def _samples_path(self) -> Path:
        return self.run_folder / "samples" / f"epoch_{self.progress.epoch:04d}.png"

    def _export(self, name: str) -> None:
        """Write the export `name` of the networks as they are, from the main process."""
        if not self.accelerator.is_main_process:
            return
        progress = self.progress
        metrics = {key: {"value": value} for key, value in progress.metrics.items()}
        samples = self._samples_path()
        if not samples.exists():
            self._save_samples(samples)
        write_export(
            self.run_folder / name,
            generator=self.exported_generator,
            discriminator=self.discriminator,
            preprocessor=preprocessor_config(
                self.config.image_height_width,
                self.config.resize,
                self.exported_generator.size_multiple,
                self.pairs.formats,
            ),
            training_config=self.run_folder / TRAINING_CONFIG_NAME,
            metrics={"step": progress.step, "epoch": progress.epoch, "pairs": len(self.validation_set)} | metrics,
            samples=samples,
        )
