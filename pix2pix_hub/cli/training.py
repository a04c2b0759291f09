"""`pix2pix-hub train` from its options to its last words."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from tyro.conf import OmitArgPrefixes

from pix2pix_hub import config as options
from pix2pix_hub.cli.options import refuse_unknown
from pix2pix_hub.config import PRESETS, TrainingConfig, flag, preset_config
from pix2pix_hub.export import MODEL, PREPROCESSOR_NAME, Export
from pix2pix_hub.util import UserError

if TYPE_CHECKING:
    from pix2pix_hub.training.trainer import TrainingResult

logger = logging.getLogger(__name__)

SIGNAL_EXIT = 128  # plus the number of the signal, as shells do
GROUPS: dict[str, Any] = {  # of options, as --help shows them
    "start": options.StartOptions,
    "data": options.TrainingPairs,
    "augmentation": options.AugmentationOptions,
    "network": options.NetworkOptions,
    "loss": options.LossOptions,
    "schedule": options.ScheduleOptions,
    "run": options.RunOptions,
    "Hub": options.HubOptions,
}


def train(arguments: list[str]) -> int:
    """Train pix2pix on pairs of images, and say what to do next.

    Raises:
        UserError: something the person can mend.
        SystemExit: as `parse_training_config`.
    """
    config = parse_training_config(arguments)
    from pix2pix_hub.devices import process_state, relaunch_on_cpus

    relaunch_on_cpus()
    process_state()
    from torch.distributed import group

    joined_last = group.WORLD  # None for one process
    status = _train(config, arguments)
    gc.collect()  # the networks, which hold the group, too
    del joined_last  # waits for the group's threads, which end the process with SIGABRT if they outlive Python
    return status


def _train(config: TrainingConfig, arguments: list[str]) -> int:
    """Train, push, and say what to do next. Returns the exit status."""
    from pix2pix_hub.cli.publishing import Publisher
    from pix2pix_hub.devices import process_state, sharing_failures

    first = process_state().is_main_process
    with sharing_failures():
        publisher = Publisher(config, pushes=first)
    from pix2pix_hub.training.trainer import Pix2PixTrainer

    trainer = Pix2PixTrainer(
        config,
        command=shlex.join([*_how_started(), *arguments]),
        complete_export=publisher.complete_export,
        on_export=publisher.on_export,
    )
    if trainer.accelerator.is_main_process:
        logger.info("%s", trainer.describe())
    if config.dry_run:
        words = trainer.estimate()
        if trainer.accelerator.is_main_process:
            logger.info("%s\nDry run: everything checked, nothing kept or written.", words)
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
    if trainer.accelerator.is_main_process:
        logger.info("%s", _closing_words(result, config))
    return SIGNAL_EXIT + result.stop_signal if result.stop_signal else 0


def parse_training_config(arguments: list[str]) -> TrainingConfig:
    """Parse options, on top of the preset's values or, with `--resume`, of the run's own.

    Raises:
        UserError: a value that cannot work, an option that does not exist.
        SystemExit: `--help`, or a value that is none.
    """
    refuse_unknown(arguments, TrainingConfig, "train")
    base = _base_of(arguments)
    groups = [
        (title, group, group(**{field.name: getattr(base, field.name) for field in dataclasses.fields(group)}))
        for title, group in GROUPS.items()
    ]
    parsed: Any = tyro.cli(
        dataclasses.make_dataclass("Options", groups),
        args=arguments,
        prog="pix2pix-hub train",
        description="Train pix2pix on pairs of images. Defaults are those of the preset.",
        config=(OmitArgPrefixes,),
    )
    return TrainingConfig(**{name: value for group in vars(parsed).values() for name, value in vars(group).items()})


def _how_started() -> list[str]:
    """The words of the command line before the options: as they were typed, for whom knows no more than that."""
    launcher = ["accelerate", "launch"] if "ACCELERATE_MIXED_PRECISION" in os.environ else []
    if Path(sys.argv[0]).name == "train_accelerate.py":
        return [*(launcher or ["python"]), "train_accelerate.py"]
    return [*launcher, "-m", "pix2pix_hub.cli", "train"] if launcher else ["pix2pix-hub", "train"]


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


def _closing_words(result: TrainingResult, config: TrainingConfig) -> str:
    """Where the model is, and what a person would type next."""
    folder = result.run_folder
    run, start = shlex.quote(str(folder)), shlex.join(_how_started())
    resume = f"{start} --resume --output-dir {run}"
    longer, length = ("--epochs", result.epoch) if config.max_steps is None else ("--max-steps", result.step)
    if result.stop_signal:
        return f"Stopped at step {result.step}; everything is saved. Go on with:\n  {resume}"
    half = Export(folder / MODEL).read(PREPROCESSOR_NAME).get("source_half")
    translate = {"path/to/images": "translate images with it"}
    if half is not None:
        translate = {f"path/to/pairs --side {half}": f"translate the {half} halves of pairs side by side"} | translate
    steps = {
        f"{resume} {longer} {2 * max(1, length)}": "train on to twice the length",
        **{f"pix2pix-hub translate {run} {what} --output translated": words for what, words in translate.items()},
        f"pix2pix-hub app --model {run}": "see it in the browser",
    }
    if config.push_to_hub is None:
        steps[f"pix2pix-hub push {run} user/name"] = "publish it on the Hub"
    if config.dataset == TrainingConfig.dataset:  # the embedded set
        own = "train on your own pairs (a folder of side-by-side images, or of folders A and B)"
        steps[f"{start} --dataset path/to/your/pairs --direction AtoB"] = own
    return "\n".join(
        [
            f"The model is in {folder / 'model'} (best on validation: {folder / 'model_best'}), "
            f"pictures are in {folder / 'samples'}, curves in {folder / 'curves.png'}.",
            "Next:",
            *(f"  {command}\n      {purpose}" for command, purpose in steps.items()),
        ]
    )
