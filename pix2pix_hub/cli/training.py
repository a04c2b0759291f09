"""train_accelerate.py from its options to its last words; nothing heavy is imported before the options are good."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import shlex
import sys
from typing import TYPE_CHECKING

from pix2pix_hub.config import PRESETS, TrainingConfig, flag, preset_config
from pix2pix_hub.export import MODEL, PREPROCESSOR_NAME, Export
from pix2pix_hub.util import UserError

if TYPE_CHECKING:
    from pix2pix_hub.training.trainer import TrainingResult

logger = logging.getLogger(__name__)

USAGE_ERROR = 2
SIGNAL_EXIT = 128  # plus the number of the signal, as shells do


def train(arguments: list[str]) -> int:
    """Run `train_accelerate.py`: parse, train, publish, say what to do next. Returns the exit status."""
    set_up_logging()
    try:
        config = parse_training_config(arguments)
        from pix2pix_hub.devices import process_state, relaunch_on_cpus, sharing_failures

        relaunch_on_cpus()
        from pix2pix_hub.cli.publishing import Publisher

        first = process_state().is_main_process
        with sharing_failures():
            publisher = Publisher(config, pushes=first)
        from pix2pix_hub.training.trainer import Pix2PixTrainer

        launcher = ["accelerate", "launch"] if "ACCELERATE_MIXED_PRECISION" in os.environ else ["python"]
        command = shlex.join([*launcher, "train_accelerate.py", *arguments])
        trainer = Pix2PixTrainer(
            config, command=command, complete_export=publisher.complete_export, on_export=publisher.on_export
        )
        if trainer.accelerator.is_main_process:
            logger.info("%s", trainer.describe())
        if config.dry_run:
            logger.info("Dry run: everything checked, nothing trained or written.")
            return 0
        with sharing_failures():
            publisher.open()
        try:
            result = trainer.train()
        except BaseException:
            publisher.abandon(trainer.run_folder)
            raise
        if result.stop_signal:
            publisher.abandon(result.run_folder)
        else:
            result = dataclasses.replace(result, stop_signal=publisher.finish(result.run_folder))
    except UserError as error:
        logger.error("error: %s", error)
        return USAGE_ERROR
    if trainer.accelerator.is_main_process:
        logger.info("%s", _closing_words(result, config))
    return SIGNAL_EXIT + result.stop_signal if result.stop_signal else 0


def parse_training_config(arguments: list[str]) -> TrainingConfig:
    """Parse options, on top of the preset's values or, with `--resume`, of the run's own.

    Raises:
        UserError: a value that cannot work.
        SystemExit: `--help`, or an option that does not exist (tyro names close ones).
    """
    import tyro

    return tyro.cli(
        TrainingConfig,
        default=_base_of(arguments),
        args=arguments,
        prog="train_accelerate.py",
        description="Train pix2pix on pairs of images. Defaults are those of the preset.",
    )


def _base_of(arguments: list[str]) -> TrainingConfig:
    """The options that those given are laid over."""
    first_look = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("preset", "dataset", "output_dir", "init_from"):
        first_look.add_argument(flag(name), f"--{name}")
    first_look.add_argument("--resume", action="store_true")
    seen, others = first_look.parse_known_args(arguments)
    if seen.resume or seen.init_from is not None:
        from pix2pix_hub.devices import process_state, sharing_failures

        process_state()
    if seen.resume:
        from pix2pix_hub.training.run_folder import find_together

        folder, stored = find_together(preset_config("demo", resume=True, output_dir=seen.output_dir))
        if stored is None and not others and not seen.dataset and not seen.preset:
            raise UserError(f"--resume found no run in {folder}: check --output-dir, or say what to train.")
        if stored is not None:
            return dataclasses.replace(stored, resume=True, output_dir=str(folder))
    preset = seen.preset or ("default" if seen.dataset else "demo")
    base = preset_config(preset if preset in PRESETS else "default")  # tyro reports an unknown one
    if seen.init_from is None:
        return base
    from pix2pix_hub.training.published import architecture_options

    with sharing_failures():
        return dataclasses.replace(base, **architecture_options(seen.init_from), init_from=seen.init_from)


def set_up_logging() -> None:
    handler = logging.StreamHandler(sys.stderr)
    rank = int(os.environ.get("RANK", 0))
    handler.setFormatter(logging.Formatter(f"rank {rank}: %(message)s" if rank else "%(message)s"))
    package = logging.getLogger("pix2pix_hub")
    package.handlers = [handler]
    package.propagate = False
    package.setLevel(logging.ERROR if rank else logging.INFO)


def _closing_words(result: TrainingResult, config: TrainingConfig) -> str:
    """Where the model is, and what a person would type next."""
    folder = result.run_folder
    resume = f"accelerate launch train_accelerate.py --resume --output-dir {shlex.quote(str(folder))}"
    longer, length = ("--epochs", result.epoch) if config.max_steps is None else ("--max-steps", result.step)
    if result.stop_signal:
        return f"Stopped at step {result.step}; everything is saved. Go on with:\n  {resume}"
    run = shlex.quote(str(folder))
    half = Export(folder / MODEL).read(PREPROCESSOR_NAME).get("source_half")
    translate = {"path/to/images": "translate images with it"}
    if half is not None:
        translate = {f"path/to/pairs --side {half}": f"translate the {half} halves of pairs side by side"} | translate
    steps = {
        f"{resume} {longer} {2 * max(1, length)}": "train on to twice the length",
        **{f"pix2pix-hub translate {run} {what} --output translated": words for what, words in translate.items()},
        f"python app.py --model {run}": "see it in the browser",
    }
    if config.push_to_hub is None:
        steps[f"pix2pix-hub push {run} user/name"] = "publish it on the Hub"
    if config.dataset == TrainingConfig.dataset:  # the embedded set
        train = "accelerate launch train_accelerate.py --dataset path/to/your/pairs --direction AtoB"
        steps[train] = "train on your own pairs (a folder of side-by-side images, or of folders A and B)"
    return "\n".join(
        [
            f"The model is in {folder / 'model'} (best on validation: {folder / 'model_best'}), "
            f"pictures are in {folder / 'samples'}, curves in {folder / 'curves.png'}.",
            "Next:",
            *(f"  {command}\n      {purpose}" for command, purpose in steps.items()),
        ]
    )
