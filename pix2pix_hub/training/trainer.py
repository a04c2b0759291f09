"""The training loop: pix2pix on Accelerate, from pairs to a run folder with checkpoints and exports.

Run it with `pix2pix-hub train`, on several processes with `accelerate launch train_accelerate.py`, or from Python:

    Pix2PixTrainer(preset_config("demo")).train()
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from accelerate.utils import broadcast_object_list, set_seed

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.data.decode import Fault
from pix2pix_hub.data.pairs import PairSplits
from pix2pix_hub.devices import (
    device_name,
    keep_freed_memory,
    on_any_process,
    process_state,
    set_cpu_threads,
    set_longest_wait,
    sharing_failures,
    stop_signals,
)
from pix2pix_hub.export import BEST_MODEL, MODEL, TRAINING_CONFIG_NAME, Preprocessor, write_export
from pix2pix_hub.metrics import METRICS
from pix2pix_hub.models import PatchGANDiscriminator
from pix2pix_hub.models.base import Generator
from pix2pix_hub.training.checkpoint import (
    Progress,
    Stateful,
    agreed_checkpoint,
    fail_together,
    load_checkpoint,
    remove_after,
    save_checkpoint,
)
from pix2pix_hub.training.loaders import SHARDS_NAME, TrainLoader, make_cache, open_together
from pix2pix_hub.training.published import find_start
from pix2pix_hub.training.report import (
    Pace,
    Reporter,
    draw_curves,
    overfitting_words,
    read_metrics,
    saturation_words,
    waiting_words,
)
from pix2pix_hub.training.run_folder import (
    check_same_pairs,
    check_same_run,
    claimed,
    find_together,
    record_bad_pairs,
    write_training_config,
)
from pix2pix_hub.training.setup import make_accelerator, make_learner
from pix2pix_hub.training.validation import Validation
from pix2pix_hub.util import UserError, counted, write_json

logger = logging.getLogger(__name__)

LONGEST_STEP = timedelta(minutes=30)  # for which processes in the loop wait for one that may have died
# at least, between ends of epochs at which these are written
SECONDS_BETWEEN_PICTURES = 30.0  # and between exports of the best epoch
SECONDS_BETWEEN_CHECKPOINTS = 60.0  # where --checkpoint-every is not given
WRITING_SHARE = 0.02  # of the time, that each of the two may take


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended: its folder, the last validation metrics, and the signal that stopped it early, if any."""

    run_folder: Path
    metrics: dict[str, float]
    step: int
    epoch: int
    stop_signal: int | None = None


class Spacing:
    """Keeps something that is done now and then to `WRITING_SHARE` of the time, and `seconds` apart at least."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.cost, self._done = seconds, 0.0, time.monotonic()

    def due(self) -> bool:
        """Whether enough time has passed since it was last done, or since the start."""
        return time.monotonic() - self._done > max(self.seconds, self.cost / WRITING_SHARE)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Time what is done in the block."""
        began = time.monotonic()
        yield
        self._done = time.monotonic()
        self.cost = self._done - began


class ExportContent(NamedTuple):
    """What an export is made of."""

    generator: Generator
    discriminator: PatchGANDiscriminator
    metrics: dict[str, Any]
    samples: Path  # grid of samples, drawn when it is first needed


class Pix2PixTrainer:
    """Trains generator and discriminator as `config` says; every process of a launch makes one.

    Args:
        config: all options; `config.resume` goes on with a run.
        pairs: what to train on; None: loads `config.dataset`.
        command: the command line, recorded in `training_config.json`.
        complete_export: called with the folder of an export before it is in place, and the one it replaces: adds files.
        on_export: called with the folder of each export once it is in place, by the main process.

    Raises:
        UserError: something the person can mend: data, options, folder. Nothing has been written then.
    """

    def __init__(
        self,
        config: TrainingConfig,
        pairs: PairSplits | None = None,
        command: str | None = None,
        *,
        complete_export: Callable[[Path, Path], None] | None = None,
        on_export: Callable[[Path], None] | None = None,
    ) -> None:
        if config.push_to_hub is not None and on_export is None:
            raise UserError(
                "push_to_hub is done by `pix2pix-hub train`: pass on_export= to push, or leave it out and call "
                "pix2pix_hub.hub.push.push_export when the run is through."
            )
        self.config, self.command = config, command
        self._complete_export, self._on_export = complete_export, on_export

        # The folder, what the networks begin with, the pairs.
        state = process_state()
        self.run_folder, self._stored = find_together(config)
        if self._stored is not None:
            check_same_run(self._stored, config)
        begun = config.resume and agreed_checkpoint(self.run_folder) is not None
        self.published = None if begun else find_start(config, state)
        self.pairs = pairs = pairs if pairs is not None else open_together(config, state, self.run_folder)
        if self._stored is not None:
            check_same_pairs(self.run_folder, pairs.fingerprint)

        # The machine.
        self.accelerator = accelerator = make_accelerator(config, self.run_folder)
        self.cpu_threads = set_cpu_threads(config.cpu_threads)
        if accelerator.device.type == "cpu":
            keep_freed_memory()

        # Loaders, networks and what validates them.
        set_seed(config.seed)
        self.progress = Progress()
        accelerator.register_for_checkpointing(self.progress)
        self.cache = make_cache(accelerator, config, pairs)
        self.train_loader = TrainLoader(accelerator, config, pairs, self.cache)
        self.steps_per_epoch = math.ceil(len(self.train_loader) / config.gradient_accumulation_steps)
        by_epochs = config.epochs * self.steps_per_epoch
        self.total_steps = min(by_epochs, config.max_steps or by_epochs)
        if self.published is not None:
            self.published.check_formats(pairs.formats)
        source, target = (pairs.formats[side].channels for side in ("source", "target"))
        self.learner = make_learner(accelerator, config, source, target, self.total_steps, self.published)
        with sharing_failures():
            self.validation = Validation(accelerator, config, pairs, self.learner, self.cache)
        set_seed(config.seed, device_specific=True)  # from here on dropout differs between processes

    # --- the loop ---

    def train(self) -> TrainingResult:
        """Train to the end, or until a signal or early stopping; write the exports.

        Raises:
            TrainingDiverged: a loss is NaN or infinite.
            UserError: another run is at work in the folder; something could not be written, or a checkpoint does not
                fit; a process came to pairs that it cannot go on with, where everything before them is saved.
        """
        with claimed(self.config, self.run_folder, self._stored) as self.run_folder:
            self._start()
            with stop_signals() as self._signals, self.reporter.bar, self._best_kept():
                while not self._finished():
                    # To the end of the epoch or of --max-steps, with checkpoints as --checkpoint-every says.
                    self._train_epoch()
                    # A signal, or pairs that it cannot go on with, end the run in the middle of the epoch.
                    if self._stop_requested():
                        break
                    # What the epoch brought: a line; from time to time pictures and model_best/; model/ as --push-every
                    # says.
                    self._validate_and_export()
                    # By time, or where --checkpoint-every falls on the epoch's last step.
                    if self._checkpoint_due():
                        self._checkpoint()
                # However it ended.
                self._checkpoint()
                with fail_together(self.run_folder):
                    if self.accelerator.is_main_process:
                        draw_curves(self.run_folder)
                    if self._exported_step != self.progress.step:
                        self._export(MODEL, self._content())
            return self._end()

    def _start(self) -> None:
        """Fill the run folder, or go on where the newest sound checkpoint left off."""
        self.accelerator.project_configuration.set_directories(str(self.run_folder))
        checkpoint = agreed_checkpoint(self.run_folder) if self.config.resume else None
        with fail_together(self.run_folder):
            if self.accelerator.is_main_process:
                remove_after(self.run_folder, checkpoint)
                write_training_config(self.run_folder, self.config, self._facts())
                if self.pairs.lengths is not None:
                    write_json(self.run_folder / SHARDS_NAME, {"rows": list(self.pairs.lengths)})
        if checkpoint is not None:
            with sharing_failures():
                load_checkpoint(self.accelerator, checkpoint, self._own)
            epoch, step = self.progress.epoch, self.progress.step
            if self._finished():
                told = (
                    "The run is finished, after epoch %d, step %d: give a larger --epochs (or --max-steps) to train on."
                )
                logger.info(told, epoch, step)
            else:
                logger.info("Resuming from %s: epoch %d, step %d.", checkpoint, epoch + 1, step)
        elif self.config.resume:
            logger.info("%s has no checkpoint yet: starting at step %d.", self.run_folder, self.progress.step)
        self.cache.fill(self.accelerator)
        self._bad_pairs: tuple[Fault, ...] | None = None  # as they are on record
        self._exported_step: int | None = None  # that `--push-every` has exported
        self._best: ExportContent | None = None  # of the best epoch, where model_best/ is still to be written
        with fail_together(self.run_folder):
            self._record_bad_pairs()
            self.reporter = Reporter(self.accelerator, self.config, self.run_folder, self.progress, self.total_steps)
        self._pictures, self._checkpoints = Spacing(SECONDS_BETWEEN_PICTURES), Spacing(SECONDS_BETWEEN_CHECKPOINTS)
        set_longest_wait(LONGEST_STEP)  # what takes one process long is done

    def _finished(self) -> bool:
        """All steps taken and validated, or early stopping."""
        progress, patience = self.progress, self.config.early_stopping_patience
        if patience and progress.epoch - progress.best_epoch >= patience:
            logger.info("Stopping early: no better %s for %d epochs.", self.config.best_metric, patience)
            return True
        return progress.step >= self.total_steps and progress.batch == 0

    def _train_epoch(self) -> None:
        """Train to the end of the current epoch, of the steps, or to a stop signal."""
        progress, learner = self.progress, self.learner
        if progress.step >= self.total_steps:  # resumed between the last step and its validation
            return
        learner.generator.train()
        learner.discriminator.train()
        self.reporter.start_clock()
        for batch in self.reporter.watched(self.train_loader.rest_of_epoch(progress.epoch, progress.batch)):
            losses = learner.step(batch["source"], batch["target"])
            progress.batch += 1
            self.reporter.add(progress.step + 1, losses, float(learner.schedules[0].get_last_lr()[0]))
            if not self.accelerator.sync_gradients:
                continue
            progress.step += 1
            for schedule in learner.schedules:
                schedule.step()
            self.reporter.step_taken()
            last = self.accelerator.gradient_state.end_of_dataloader or progress.step == self.total_steps
            if progress.step % self.config.log_every == 0 or last:
                self.reporter.fetch()
            every = self.config.checkpoint_every
            if every and progress.step % every == 0 and not last:
                self._checkpoint()
            if progress.step == self.total_steps or self._stop_requested():
                break

    def _stop_requested(self) -> bool:
        """Whether a signal, or pairs it cannot go on with, came to any process; asked at the same step by all."""
        stuck = self.train_loader.reason_ahead is not None and self.progress.step < self.total_steps
        return on_any_process(self._signals.received is not None or stuck)

    def _validate_and_export(self) -> None:
        """Measure the exported generator; log, draw and export what the epoch brought."""
        config, progress = self.config, self.progress
        metrics = self.validation.measure()
        losses = progress.end_epoch(metrics)
        with fail_together(self.run_folder):
            self._record_bad_pairs()
            entry = {"step": progress.step, "epoch": progress.epoch, **metrics}
            self.reporter.record("validation", entry | {f"train_{name}": value for name, value in losses.items()})
            shown = {name: metrics[name] for name in config.eval_metrics}
            self.reporter.say_epoch(shown, losses.get("d_loss", math.nan))
            if words := saturation_words(metrics):
                logger.warning("%s", words)
            value, best = metrics[config.best_metric], progress.best_value
            higher_is_better = METRICS[config.best_metric].higher_is_better
            if best is None or (value > best if higher_is_better else value < best):
                progress.best_value, progress.best_epoch = value, progress.epoch
                if self.accelerator.is_main_process:
                    now = self._content()
                    copies = now.generator.snapshot(), now.discriminator.snapshot()
                    self._best = ExportContent(*copies, now.metrics, now.samples)
            if config.push_every and progress.epoch % config.push_every == 0:
                self._export(MODEL, self._content())
                self._exported_step = progress.step
            if self.accelerator.is_main_process and self._pictures.due():
                with self._pictures.measured():
                    self._export_best()
                    self._draw_samples(self._content())
                    draw_curves(self.run_folder)

    def _checkpoint_due(self) -> bool:
        every = self.config.checkpoint_every
        if every:
            return self.progress.step % every == 0
        return bool(broadcast_object_list([self._checkpoints.due()])[0])

    def _checkpoint(self) -> None:
        with self._checkpoints.measured():
            self.reporter.fetch()
            with fail_together(self.run_folder):
                self._export_best()  # what goes on from the checkpoint knows of it
            step, keep = self.progress.step, self.config.keep_checkpoints
            save_checkpoint(self.accelerator, self.run_folder, step, self._own, keep)
            with fail_together(self.run_folder):
                self._record_bad_pairs()

    def _end(self) -> TrainingResult:
        """Say what can be learnt from the run, and how it ended."""
        progress = self.progress
        for words in (overfitting_words(read_metrics(self.run_folder)), waiting_words(progress, self.cache.plan.mode)):
            if words and self.accelerator.is_main_process:
                logger.info("%s", words)
        self.accelerator.end_training()
        reason = self.train_loader.reason_ahead
        if reason is not None and progress.step < self.total_steps:
            raise UserError(f"stopped after step {progress.step}, which is saved: {reason}")
        return TrainingResult(self.run_folder, progress.metrics, progress.step, progress.epoch, self._signals.received)

    # --- what is kept ---

    @property
    def _own(self) -> dict[str, Stateful]:
        """What a checkpoint holds of each process."""
        stream: dict[str, Stateful] = {"stream": self.train_loader} if self.train_loader.streamed else {}
        return {"image_buffer": self.learner.buffer, **stream}

    def _record_bad_pairs(self) -> None:
        recorded, self._bad_pairs = self._bad_pairs, self.train_loader.bad_pairs()
        if self.accelerator.is_main_process:
            record_bad_pairs(self.run_folder, self._bad_pairs, recorded)

    def _content(self) -> ExportContent:
        """Of the networks as they are."""
        progress = self.progress
        metrics: dict[str, Any] = {"step": progress.step, "epoch": progress.epoch, "seconds": progress.elapsed_seconds}
        for metric, value in progress.metrics.items():
            metrics[metric] = {"value": value if math.isfinite(value) else None}
        metrics["pairs"] = len(self.validation.pairs)
        moment = f"step_{progress.step:06d}" if progress.batch else f"epoch_{progress.epoch:04d}"
        samples = self.run_folder / "samples" / f"{moment}.png"
        return ExportContent(self.learner.exported_generator, self.learner.discriminator, metrics, samples)

    def _draw_samples(self, content: ExportContent) -> None:
        if not content.samples.exists():
            self.validation.save_samples(content.samples, content.generator)

    def _export_best(self) -> None:
        """Write the export of the best epoch, where that is still to be done."""
        if self._best is not None:
            self._export(BEST_MODEL, self._best)
            self._best = None

    @contextmanager
    def _best_kept(self) -> Iterator[None]:
        """Whatever ends the block, the export of the best epoch is written if it can be."""
        try:
            yield
        except Exception:
            with suppress(Exception):  # the first is the one to be told
                self._export_best()
            raise

    def _export(self, name: str, content: ExportContent) -> None:
        """Write the export `name`, from the main process."""
        if not self.accelerator.is_main_process:
            return
        self._draw_samples(content)
        source, target = (self.pairs.formats[side] for side in ("source", "target"))
        size, resize, columns = self.config.image_height_width, self.config.resize, self.pairs.train.columns
        half = ("right" if self.pairs.train.swap else "left") if len(columns) == 1 else None
        write_export(
            self.run_folder / name,
            content.generator,
            Preprocessor(source, target, size, resize, content.generator.size_multiple, self.pairs.maker, half),
            discriminator=content.discriminator,
            training_config=self.run_folder / TRAINING_CONFIG_NAME,
            metrics=content.metrics,
            samples=content.samples,
            complete=self._complete_export,
        )
        if self._on_export is not None:
            self._on_export(self.run_folder / name)

    # --- what the run is ---

    def describe(self) -> str:
        """What is trained on what, with what: several lines for a person."""
        config, accelerator = self.config, self.accelerator
        counts = ", ".join(f"{name} {count:,} parameters" for name, count in self.learner.parameter_counts.items())
        threads = f", {counted(self.cpu_threads, 'thread')}" if accelerator.device.type == "cpu" else ""
        batches = {"process": accelerator.num_processes, "batch": config.gradient_accumulation_steps}
        times = "".join(f" x {counted(number, unit)}" for unit, number in batches.items() if number > 1)
        lines = [
            f"pairs      {self.pairs.description}",
            f"networks   {counts}",
            f"device     {accelerator.num_processes} x {accelerator.device.type}{threads}, "
            f"mixed precision: {accelerator.mixed_precision}, compile: {self.learner.compilation}",
            f"length     {counted(self.total_steps, 'step')}, "
            f"{counted(self.total_steps / self.steps_per_epoch, 'epoch')}, batch size {config.batch_size}{times}",
            f"cache      {self.cache.plan.words}",
            f"run        {self.run_folder}",
        ]
        if self.published is not None:
            lines.insert(2, f"begins     with {self.published.description}")
        return "\n".join(lines)

    def estimate(self) -> str:
        """Words on time and memory of the whole run, by a few steps of it: afterwards the trainer is of no more use."""
        pace = Pace(self.accelerator.device)
        for batch in self.train_loader.rest_of_epoch(0, 0):
            self.learner.step(batch["source"], batch["target"])
            if self.accelerator.sync_gradients and (words := pace.step(self.total_steps)) is not None:
                return words
        return "estimate   none: an epoch has too few steps"

    def _facts(self) -> dict[str, Any]:
        """JSON-ready, for `training_config.json`: command, data set, machine, size of the networks, where it began."""
        pairs, accelerator = self.pairs, self.accelerator
        threads = f", {counted(self.cpu_threads, 'thread')} each" if accelerator.device.type == "cpu" else ""
        return {
            "command": self.command,
            "dataset": {
                "id": pairs.dataset,
                "pairs": pairs.description,
                "sides": list(pairs.train.sides),
                "fingerprint": pairs.fingerprint,
                "left_out": len(pairs.findings.faults),
            },
            "mixed_precision": accelerator.mixed_precision,
            "processes": accelerator.num_processes,
            "device": accelerator.device.type,
            "hardware": f"{accelerator.num_processes} x {device_name(accelerator.device)}{threads}",
            "parameters": self.learner.parameter_counts,
            "started_from": self.published and self.published.commit,
        }
