"""Does the fast path train as well as plain float32? Several seeds of both, side by side.

    python benchmarks/quality.py --dataset path/to/facades --direction BtoA --runs runs/quality
    python benchmarks/quality.py --runs runs/quality --table                 # what is there already

`fast` is what a run does by default on this device; `plain` is float32, eager, nothing compiled, every convolution
torch's own. By default 10 epochs at 128x128, batch 4, half width, three seeds. Runs lie in `--runs`; started again,
the same command leaves finished ones alone; finished ones of other settings are refused. Printed, for the last epoch,
of each kind: mean over seeds of validation L1, PSNR, SSIM and the training epoch's mean discriminator loss, with the
smallest and largest seed, and the difference of the means over the seeds' pooled standard deviation.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import common  # noqa: F401  # a checkout needs no installation

from pix2pix_hub.config import preset_config
from pix2pix_hub.models import layers
from pix2pix_hub.training.trainer import Pix2PixTrainer

KINDS = ("fast", "plain")
SETTINGS = ("epochs", "image_size", "batch_size", "base_channels")  # in which runs compared must agree
COLUMNS = {"l1": "L1", "psnr": "PSNR (dB)", "ssim": "SSIM", "train_d_loss": "D loss"}


def main() -> None:
    options = parse_arguments()
    if options.only:
        train(options)
        return
    for seed in range(0 if options.table else options.seeds):
        for kind in KINDS:
            if not finished(options, kind, seed):
                command = [sys.executable, __file__, *sys.argv[1:], "--only", kind, "--seed", str(seed)]
                subprocess.run(command, check=True)
    sys.stdout.write("\n".join(table(options)) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--direction", default="AtoB", choices=("AtoB", "BtoA"))
    parser.add_argument("--runs", default="runs/quality", help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image-size", default="128")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--base-channels", type=int, default=32)
    parser.add_argument("--preset", default="default", choices=("default", "compact", "paper"))
    parser.add_argument("--max-train-pairs", type=int)
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--only", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if why := obstacle(options):
        parser.error(why)
    return options


def folder_of(options: argparse.Namespace, kind: str, seed: int) -> Path:
    return Path(options.runs) / f"{kind}_{seed}"


def finished(options: argparse.Namespace, kind: str, seed: int) -> bool:
    return (folder_of(options, kind, seed) / "model").is_dir()


def settings_of(folder: Path) -> dict[str, object]:
    saved = json.loads((folder / "training_config.json").read_text())["options"]
    return {name: saved[name] for name in SETTINGS}


def obstacle(options: argparse.Namespace) -> str | None:
    """Why the runs that are there cannot stand in one table, or nothing; with --table they need only agree."""
    runs = [folder_of(options, kind, seed) for kind in KINDS for seed in range(options.seeds)]
    found = {folder: settings_of(folder) for folder in runs if (folder / "model").is_dir()}
    if options.table and not found:
        return f"--table: {options.runs} holds no finished run ({runs[0].name}/model). Without --table they are made."
    wanted = next(iter(found.values())) if options.table else {name: getattr(options, name) for name in SETTINGS}
    for folder, settings in found.items():
        differing = [
            f"{name} {settings[name]}, not {wanted[name]}" for name in SETTINGS if settings[name] != wanted[name]
        ]
        if differing:
            return f"{folder} holds a run of other settings: {'; '.join(differing)}. Give those, or another --runs."
    return None


def train(options: argparse.Namespace) -> None:
    """One run, gone on with where it was stopped."""
    plain = options.only == "plain"
    if plain:
        layers.SHARE_OF_WEIGHT = 0.0
    folder = folder_of(options, options.only, options.seed)
    config = preset_config(
        options.preset,
        dataset=options.dataset,
        direction=options.direction,
        image_size=options.image_size,
        batch_size=options.batch_size,
        base_channels=options.base_channels,
        discriminator_base_channels=options.base_channels,
        epochs=options.epochs,
        max_train_pairs=options.max_train_pairs,
        seed=options.seed,
        mixed_precision="no" if plain else "auto",
        compile="off" if plain else "auto",
        output_dir=str(folder),
        resume=folder.exists(),
        cpu_threads=int(os.environ.get("OMP_NUM_THREADS", "0")),
    )
    Pix2PixTrainer(config).train()


def last_epoch(folder: Path) -> dict[str, float]:
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["event"] == "validation"][-1]


def table(options: argparse.Namespace) -> list[str]:
    """Markdown: a row for each kind, and one for how far apart they are."""
    numbers = {
        kind: [
            last_epoch(folder_of(options, kind, seed)) for seed in range(options.seeds) if finished(options, kind, seed)
        ]
        for kind in KINDS
    }
    lines = ["| | seeds | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for kind, runs in numbers.items():
        columns = [[run[name] for run in runs] for name in COLUMNS]
        cells = [f"{statistics.mean(v):.4g} ({min(v):.4g} to {max(v):.4g})" if v else "" for v in columns]
        lines.append(f"| {kind} | {len(runs)} | " + " | ".join(cells) + " |")
    if min(len(runs) for runs in numbers.values()) > 1:
        apart = [_apart(*([run[name] for run in numbers[kind]] for kind in KINDS)) for name in COLUMNS]
        lines.append(
            "| difference ÷ deviation of the seeds | | " + " | ".join(f"{value:+.2f}" for value in apart) + " |"
        )
    return lines


def _apart(ours: list[float], theirs: list[float]) -> float:
    """Difference of the means over the pooled standard deviation."""
    pooled = math.sqrt((statistics.variance(ours) + statistics.variance(theirs)) / 2)
    return (statistics.mean(ours) - statistics.mean(theirs)) / pooled if pooled else 0.0


if __name__ == "__main__":
    main()
