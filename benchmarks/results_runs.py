"""The runs behind docs/results.md, one after the other: train, then measure.

    python benchmarks/results_runs.py --data path/to/sets --list                    # every command, nothing run
    python benchmarks/results_runs.py --data path/to/sets --runs results            # all of them; again: goes on
    python benchmarks/results_runs.py --data path/to/sets --runs results --only facades
    python benchmarks/results_page.py --runs results --output docs/results.md

`--data` holds `facades/`, `maps/` and `edges2shoes/` as the pix2pix project distributes them. Stopped at any moment,
the same command goes on where it was: a finished run is left alone, a half-trained one is resumed. Each run's folder
gets `run.json`: its place on the page and its exact commands, with the folder of the sets written as DATA. A folder
whose run had other commands is refused.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a checkout needs no installation

from pix2pix_hub.config import preset_config  # noqa: E402

SEEDS = (0, 1, 2)
PRESETS = ("paper", "default", "strong")
SETS = {  # section: (data set, its direction, the task it is scored by)
    "facades": ("facades", ("--direction", "BtoA"), "segmentation"),
    "maps": ("maps", ("--direction", "AtoB"), "labels"),
    "aerial": ("maps", ("--direction", "BtoA"), "none"),
    "edges2shoes": ("edges2shoes", ("--direction", "AtoB"), "none"),
    "synthetic": ("synthetic", (), "segmentation"),
}
BASE = "default"
ABLATIONS = {"ablation": ("facades", (BASE, "strong"))}  # section: whose runs of which presets stand in it too
VARIANTS = {  # further rows there: a preset, and what is changed in it
    "hinge loss": (BASE, "--gan-loss", "hinge"),
    "hinge loss, feature matching": (BASE, "--gan-loss", "hinge", "--feature-matching-weight", "10"),
    "strong without perceptual loss": ("strong", "--perceptual-weight", "0"),
    "perceptual loss": (BASE, "--perceptual-weight", "300", "--perceptual-network", "squeezenet"),
    "transposed convolutions": (BASE, "--upsampling", "transposed"),
    "rotation and colors": (BASE, "--rotation-degrees", "10", "--color-jitter", "0.2"),
    "without dropout": (BASE, "--dropout", "0"),
}
Execute = Callable[[Sequence[str]], Any]


@dataclass(frozen=True)
class Run:
    """One model: trained once, measured once."""

    sections: tuple[str, ...]  # of the page
    variant: str  # its row there
    seed: int
    dataset: str  # a folder of --data, or `synthetic`
    training: tuple[str, ...]  # options of train_accelerate.py
    evaluation: tuple[str, ...]  # options of `evaluate`
    series: tuple[str, ...]  # options of this script that made it

    @property
    def name(self) -> str:
        """Of its folder."""
        variant = "".join(letter if letter.isalnum() else "_" for letter in self.variant)
        return f"{self.sections[0]}-{variant}-seed{self.seed}"

    def commands(self, data: str, runs: str, resume: bool = False) -> list[list[str]]:
        """To train, then to measure; everything after `python`."""
        dataset = self.dataset if self.dataset == "synthetic" else f"{data}/{self.dataset}"
        folder = f"{runs}/{self.name}"
        options = ["--dataset", dataset, *self.training, "--seed", str(self.seed), "--output-dir", folder]
        measure = ["evaluate", f"{folder}/model", dataset, "--output", f"{folder}/evaluation", *self.evaluation]
        return [
            ["train_accelerate.py", *options, *(["--resume"] if resume else [])],
            ["-m", "pix2pix_hub.cli", *measure],
        ]

    def shown_commands(self) -> list[str]:
        """As they can be published: no folder of this machine."""
        shown = [shlex.join(["python", *command]) for command in self.commands("DATA", "runs")]
        return [command.replace("python -m pix2pix_hub.cli", "pix2pix-hub") for command in shown]


def widths(preset: str, shrink: int) -> tuple[str, ...]:
    """Options that divide the preset's channel counts by `shrink`."""
    if shrink == 1:
        return ()
    config = preset_config(preset)
    generator, discriminator = config.base_channels, config.discriminator_base_channels or config.base_channels
    options = ("--base-channels", str(generator // shrink))
    if discriminator != generator:
        options += ("--discriminator-base-channels", str(discriminator // shrink))
    return options


def plan(budget: Sequence[str], max_steps: int, shrink: int = 1, learning_rate: str = "0.0002") -> list[Run]:
    """All runs, those of each table together.

    Args:
        budget: training options that all of them share, and this script has too.
        max_steps: optimizer steps of each.
        shrink: what every network's width is divided by, `demo`'s excepted.
        learning_rate: of every run, `demo`'s excepted.
    """
    series = (*budget, "--max-steps", str(max_steps), "--shrink", str(shrink), "--learning-rate", learning_rate)
    runs = []

    def add(sections: tuple[str, ...], of: str, variant: str, preset: str, *options: str) -> None:
        dataset, direction, task = SETS[of]
        own = () if preset == "demo" else ("--learning-rate", learning_rate, *widths(preset, shrink))
        training = ("--preset", preset, *direction, *budget, "--max-steps", str(max_steps), *own, *options)
        for seed in SEEDS:
            runs.append(Run(sections, variant, seed, dataset, training, ("--task", task), series))

    for section, (dataset, *_) in SETS.items():
        for preset in ("demo", *PRESETS) if dataset == "synthetic" else PRESETS:
            ablations = [name for name, (of, presets) in ABLATIONS.items() if of == section and preset in presets]
            add((section, *ablations), section, preset, preset)
    for section, (of, _) in ABLATIONS.items():
        for variant, (preset, *options) in VARIANTS.items():
            add((section,), of, variant, preset, *options)
    return runs


def carry_out(run: Run, data: str, runs: Path, execute: Execute) -> bool:
    """Do what is left of a run; False where nothing was."""
    folder = runs / run.name
    if (folder / "evaluation" / "metrics.json").is_file():
        return False
    training, measuring = run.commands(data, str(runs), resume=(folder / "training_config.json").is_file())
    execute([sys.executable, *training])  # a stopped run has a model, too; resuming a finished one does nothing
    facts = {
        "sections": run.sections,
        "variant": run.variant,
        "seed": run.seed,
        "dataset": run.dataset,
        "series": shlex.join(["python", "benchmarks/results_runs.py", "--data", "DATA", "--runs", "runs", *run.series]),
        "commands": run.shown_commands(),
    }
    (folder / "run.json").write_text(json.dumps(facts, indent=2) + "\n")
    execute([sys.executable, *measuring])
    return True


def obstacle(chosen: Sequence[Run], data: Path, runs: Path) -> str | None:
    """Why these runs cannot begin, or nothing."""
    folders = [data, *(data / run.dataset for run in chosen if run.dataset != "synthetic")]
    for folder in folders:
        if not folder.is_dir():
            return f"--data: there is no folder {folder}. Give the one that holds facades/, maps/ and edges2shoes/."
    for run in chosen:
        facts = runs / run.name / "run.json"
        if facts.is_file() and json.loads(facts.read_text())["commands"] != run.shown_commands():
            return (
                f"{facts.parent} holds a run that other commands made (its run.json has them); its numbers would be "
                "mixed with these. Give the options it was made with, or another --runs."
            )
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="folder that holds facades/, maps/ and edges2shoes/")
    parser.add_argument("--runs", default="results", type=Path, help="folder of the runs")
    parser.add_argument("--only", default="", help="runs whose names contain this")
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    parser.add_argument("--image-size", default="128")
    parser.add_argument("--batch-size", default="4")
    parser.add_argument("--learning-rate", default="0.0002", help="of all runs but `demo`'s")
    parser.add_argument("--max-steps", type=int, default=1000, help="optimizer steps of a run")
    parser.add_argument("--shrink", type=int, default=1, help="divides every network's channels, `demo`'s excepted")
    options = parser.parse_args(arguments)
    budget = ["--image-size", options.image_size, "--batch-size", options.batch_size]
    chosen = [
        run
        for run in plan(budget, options.max_steps, options.shrink, options.learning_rate)
        if options.only in run.name
    ]
    if not chosen:
        parser.error(f"--only {options.only}: no run's name contains this. --list without --only shows their commands.")
    if not options.list and (why := obstacle(chosen, Path(options.data), options.runs)):
        parser.error(why)
    for number, run in enumerate(chosen, 1):
        if options.list:
            sys.stdout.writelines(
                shlex.join(["python", *command]) + "\n" for command in run.commands(options.data, str(options.runs))
            )
            continue
        sys.stderr.write(f"{number} of {len(chosen)}: {run.name}\n")
        carry_out(run, options.data, options.runs, lambda command: subprocess.run(command, cwd=ROOT, check=True))


if __name__ == "__main__":
    main()
