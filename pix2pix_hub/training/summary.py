"""What a run is, in words for a person and in facts for `training_config.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pix2pix_hub.devices import device_name
from pix2pix_hub.util import counted

if TYPE_CHECKING:
    from pix2pix_hub.training.trainer import Pix2PixTrainer


def describe_run(trainer: Pix2PixTrainer) -> str:
    """What is trained on what, with what: a line each."""
    config, accelerator = trainer.config, trainer.accelerator
    counts = ", ".join(f"{name} {count:,} parameters" for name, count in trainer.learner.parameter_counts.items())
    threads = f", {counted(trainer.cpu_threads, 'thread')}" if accelerator.device.type == "cpu" else ""
    epochs = counted(trainer.total_steps / trainer.train_loader.steps_per_epoch, "epoch")
    lines = [
        f"pairs      {trainer.pairs.description}",
        f"networks   {counts}",
        f"device     {accelerator.num_processes} x {accelerator.device.type}{threads}, "
        f"mixed precision: {accelerator.mixed_precision}, compile: {trainer.learner.compilation.reason}",
        f"length     {counted(trainer.total_steps, 'step')}, {epochs}, batch size {config.batch_size} x "
        f"{accelerator.num_processes} x {config.gradient_accumulation_steps}",
        f"cache      {trainer.cache.plan.words}",
        f"run        {trainer.run_folder}",
    ]
    if trainer.published is not None:
        progress = trainer.progress
        place = f", epoch {progress.epoch + 1}, step {progress.step}" if progress.step else ""
        lines.insert(2, f"begins     with {trainer.published.describe()}{place}")
    return "\n".join(lines)


def run_facts(trainer: Pix2PixTrainer) -> dict[str, Any]:
    """JSON-ready: command, data set, machine, size of the networks, what it began with."""
    pairs, accelerator = trainer.pairs, trainer.accelerator
    threads = f", {counted(trainer.cpu_threads, 'thread')} each" if accelerator.device.type == "cpu" else ""
    return {
        "command": trainer.command,
        "dataset": {
            "id": pairs.dataset,
            "pairs": pairs.description,
            "fingerprint": pairs.fingerprint,
            "left_out": len(pairs.findings.faults),
        },
        "mixed_precision": accelerator.mixed_precision,
        "processes": accelerator.num_processes,
        "device": accelerator.device.type,
        "hardware": f"{accelerator.num_processes} x {device_name(accelerator.device)}{threads}",
        "parameters": trainer.learner.parameter_counts,
        "started_from": trainer.published and trainer.published.commit,
    }
