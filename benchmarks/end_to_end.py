"""How long does a whole run take, from files to an export, against the paper's loop written down plainly?

    python benchmarks/end_to_end.py --device cpu --pairs 16 --epochs 1 --batch-size 1 --json
    python benchmarks/end_to_end.py --device cuda --dataset facades --direction BtoA --epochs 200 --batch-size 16

Ours is the trainer that `train_accelerate.py` starts, preset `paper` at 256x256: reading, augmentation, both networks,
validation, sample grids, checkpoint, export. The reference (`reference_loop.py`) reads and trains the same, measures L1
and saves its weights. Whole runs take turns, each side in a process of its own that has imported everything. Without
`--dataset` (a folder of side-by-side images in `train/` and `val/`) the embedded façades are written to such a folder.
"""

from __future__ import annotations

import argparse
import logging
import math
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import torch
import turns
from accelerate.state import AcceleratorState, GradientState
from PIL import Image
from reference_loop import reference_run
from train_step import reference_step

from pix2pix_hub.config import preset_config
from pix2pix_hub.synthetic import render_pair
from pix2pix_hub.training.trainer import Pix2PixTrainer

SIZE = 256  # pixels: the reference's depth allows no smaller one
VALIDATION_SHARE = 8  # one validation pair for so many training pairs


def main() -> None:
    options = parse_arguments()
    device = common.set_up(options)
    if options.only:
        turns.serve(MAKERS[options.only](options, device), device, lambda: flop_of(options, device))
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments = list(sys.argv[1:])
        if options.dataset is None:
            write_pairs(Path(folder), options.pairs)
            arguments += ["--dataset", folder]
        measured, rates = turns.take_turns(
            __file__, arguments, list(MAKERS), options.rounds, device, warm_up=options.warm_up
        )
        images = training_pairs(options.dataset or folder) * options.epochs
    rate = statistics.median(rates)
    table: dict[str, dict[str, Any]] = {
        name: common.summary(found.seconds, images, found.flop, rate) | {"peak_mib": found.peak_mib}
        for name, found in measured.items()
    }
    result = {
        "benchmark": "end_to_end",
        "machine": common.machine(device),
        "batch_size": options.batch_size,
        "images": images,
        "multiply_gflop_per_second": round(rate / 1e9, 1),
        "ratio": round(table["ours"]["images_per_second"] / table["reference"]["images_per_second"], 3),
        **table,
    }
    common.report(result, table, options.json)


def parse_arguments() -> argparse.Namespace:
    parser = common.parser(__doc__ or "")
    parser.set_defaults(rounds=3, image_size=SIZE)
    parser.add_argument("--dataset", help="folder of side-by-side images in train/ and val/")
    parser.add_argument("--direction", default="AtoB", choices=("AtoB", "BtoA"), help="of ours (both cost the same)")
    parser.add_argument("--pairs", type=int, default=16, help="training pairs, without --dataset")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--mixed-precision", default="auto", choices=("auto", "no", "bf16", "fp16"), help="of ours")
    parser.add_argument("--compile", default="auto", choices=("auto", "on", "off"), help="of ours")
    parser.add_argument("--warm-up", type=int, default=0, help="untimed runs of each")
    parser.add_argument("--only", choices=tuple(MAKERS), help=argparse.SUPPRESS)  # what own processes are told
    return parser.parse_args()


def write_pairs(folder: Path, count: int) -> None:
    """Embedded façades, label map | photo, as the published sets are stored."""
    for split, first, number in (("train", 0, count), ("val", count, max(1, count // VALIDATION_SHARE))):
        (folder / split).mkdir()
        for index in range(first, first + number):
            halves = render_pair(index, size=(SIZE, SIZE), seed=0)
            both = Image.new("RGB", (2 * SIZE, SIZE))
            for place, half in enumerate(halves):
                both.paste(half.convert("RGB"), (place * SIZE, 0))
            both.save(folder / split / f"{index}.jpg", quality=95)


def training_pairs(folder: str) -> int:
    return len(list((Path(folder) / "train").iterdir()))


def flop_of(options: argparse.Namespace, device: torch.device) -> int:
    """Of all training steps of a run; a last, smaller batch counts as a whole one."""
    steps = math.ceil(training_pairs(options.dataset) / options.batch_size) * options.epochs
    return steps * common.count_flop(reference_step(options, device))


def reference(options: argparse.Namespace, device: torch.device) -> Callable[[], Any]:
    def run() -> None:
        with tempfile.TemporaryDirectory() as output:
            dataset = Path(options.dataset)
            reference_run(dataset, SIZE, options.batch_size, options.epochs, device, Path(output))

    return run


def ours(options: argparse.Namespace, device: torch.device) -> Callable[[], Any]:
    logging.disable(logging.WARNING)

    def run() -> None:
        with tempfile.TemporaryDirectory() as output:
            config = preset_config(
                "paper",
                dataset=options.dataset,
                direction=options.direction,
                image_size=str(SIZE),
                batch_size=options.batch_size,
                epochs=options.epochs,
                mixed_precision=options.mixed_precision,
                compile=options.compile,
                cpu_threads=options.threads,
                output_dir=str(Path(output) / "run"),
            )
            Pix2PixTrainer(config).train()
        AcceleratorState._reset_state(reset_partial_state=True)  # as a process of its own would find it
        GradientState._reset_state()

    return run


MAKERS: dict[str, Callable[[argparse.Namespace, torch.device], Callable[[], Any]]] = {
    "reference": reference,
    "ours": ours,
}

if __name__ == "__main__":
    main()
