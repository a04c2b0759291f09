"""The command lines. Nothing heavy is imported before the options are known to be good."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import shlex
import sys
from typing import TYPE_CHECKING

from pix2pix_hub.config import PRESETS, TrainingConfig, preset_config
from pix2pix_hub.errors import UserError

if TYPE_CHECKING:
    from pix2pix_hub.training.trainer import TrainingResult

logger = logging.getLogger(__name__)

USAGE_ERROR = 2
SIGNAL_EXIT = 128  # plus the number of the signal, as shells do


def train(arguments: list[str]) -> int:
    """`train_accelerate.py`: parse, train, say what to do next. Returns the exit status."""
    _set_up_logging()
    try:
        config = parse_training_config(arguments)
        from pix2pix_hub.launcher import follow_launcher

        follow_launcher()
        from pix2pix_hub.training.trainer import Pix2PixTrainer

        command = shlex.join(["accelerate", "launch", "train_accelerate.py", *arguments])
        trainer = Pix2PixTrainer(config, command=command)
        if trainer.accelerator.is_main_process:
            logger.info("%s", trainer.describe())
        if config.dry_run:
            logger.info("Dry run: everything checked, nothing trained or written.")
            return 0
        result = trainer.train()
    except UserError as error:
        logger.error("error: %s", error)
        return USAGE_ERROR
    if trainer.accelerator.is_main_process:
        logger.info("%s", _closing_words(result))
    return SIGNAL_EXIT + result.stop_signal if result.stop_signal else 0


def parse_training_config(arguments: list[str]) -> TrainingConfig:
    """Options → config, on top of the preset's values or, with `--resume`, of the run's own.

    Raises:
        UserError: a value that cannot work.
        SystemExit: `--help`, or an option that does not exist (tyro names close ones).
    """
    import tyro

    chosen = _choose_base(arguments)
    return tyro.cli(
        TrainingConfig,
        default=chosen,
        args=arguments,
        prog="train_accelerate.py",
        description="Train pix2pix on pairs of images. Defaults are those of the preset.",
    )


def _choose_base(arguments: list[str]) -> TrainingConfig:
    """What the options given are laid over."""
    first_look = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first_look.add_argument("--preset")
    first_look.add_argument("--dataset")
    first_look.add_argument("--output-dir", "--output_dir")
    first_look.add_argument("--resume", action="store_true")
    seen, _ = first_look.parse_known_args(arguments)
    if seen.resume:
        from pix2pix_hub.training.run_folder import run_to_resume, stored_config

        folder = run_to_resume(seen.output_dir)
        stored = stored_config(folder)
        if stored is not None:
            return dataclasses.replace(stored, resume=True, output_dir=str(folder))
    preset = seen.preset or ("default" if seen.dataset else "demo")
    return preset_config(preset if preset in PRESETS else "default")  # tyro reports an unknown one


def _set_up_logging() -> None:
    handler = logging.StreamHandler(sys.stderr)
    rank = int(os.environ.get("RANK", 0))
    handler.setFormatter(logging.Formatter(f"rank {rank}: %(message)s" if rank else "%(message)s"))
    package = logging.getLogger("pix2pix_hub")
    package.handlers = [handler]
    package.propagate = False
    package.setLevel(logging.ERROR if rank else logging.INFO)


def _closing_words(result: TrainingResult) -> str:
    """Where the model is, and what a person would type next."""
    folder = result.run_folder
    resume = f"accelerate launch train_accelerate.py --resume --output-dir {folder}"
    if result.stop_signal:
        return f"Stopped at step {result.step}; everything is saved. Go on with:\n  {resume}"
    return "\n".join(
        [
            f"The model is in {folder / 'model'} (best on validation: {folder / 'model_best'}), "
            f"pictures are in {folder / 'samples'}, curves in {folder / 'curves.png'}.",
            "Next:",
            f"  {resume} --epochs {2 * max(1, result.epoch)}",
            "      train on to twice the epochs",
            "  accelerate launch train_accelerate.py --dataset path/to/your/pairs --direction AtoB",
            "      train on your own pairs (a folder of side-by-side images)",
            '  python -c "from pix2pix_hub import UNetGenerator; '
            f"print(UNetGenerator.from_pretrained('{folder / 'model'}'))\"",
            "      load the generator in Python",
        ]
    )
