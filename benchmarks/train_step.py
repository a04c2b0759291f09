"""How long does one training step take, against the paper's loop written down plainly?

    python benchmarks/train_step.py --device cpu --batch-size 1 --json

Preset `paper`'s networks at 256x256, step after step on the same random batch, ours and `reference.py`'s taking turns.
Printed: median, spread, images/s, GFLOP of the multiplications, share of the rate at which this device multiplies
float32 matrices, peak memory; "ratio" is ours ÷ reference in images/s. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import torch
import turns
from reference import ReferenceStep

from pix2pix_hub.config import TrainingConfig, preset_config
from pix2pix_hub.devices import keep_freed_memory
from pix2pix_hub.training.setup import make_accelerator, make_learner


def main() -> None:
    options = parse_arguments()
    device = common.set_up(options)
    if options.only:
        call, plain = MAKERS[options.only](options, device), reference_step(options, device)
        turns.serve(call, device, lambda: common.count_flop(plain))
        return
    measured, rates = turns.take_turns(__file__, sys.argv[1:], list(MAKERS), options.rounds, device)
    rate = statistics.median(rates)
    table: dict[str, dict[str, Any]] = {
        name: common.summary(found.seconds, options.batch_size, found.flop, rate) | {"peak_mib": found.peak_mib}
        for name, found in measured.items()
    }
    ratio = table["ours"]["images_per_second"] / table["reference"]["images_per_second"]
    result = {
        "benchmark": "train_step",
        "machine": common.machine(device),
        "batch_size": options.batch_size,
        "image_size": options.image_size,
        "preset": options.preset,
        "mixed_precision": options.mixed_precision,
        "multiply_gflop_per_second": round(rate / 1e9, 1),
        "ratio": round(ratio, 3),
        **table,
    }
    common.report(result, table, options.json)


def parse_arguments() -> argparse.Namespace:
    parser = common.parser(__doc__ or "")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--preset", default="paper", choices=("paper", "default", "compact"))
    parser.add_argument("--mixed-precision", default="auto", choices=("auto", "no", "bf16", "fp16"), help="of ours")
    parser.add_argument("--compile", default="auto", choices=("auto", "on", "off"), help="of ours")
    parser.add_argument("--only", choices=tuple(MAKERS), help=argparse.SUPPRESS)  # what own processes are told
    return parser.parse_args()


def batch_of(options: argparse.Namespace, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (options.batch_size, 3, options.image_size, options.image_size)
    source, target = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).mul(2).sub(1).to(device)
    return source, target


def reference_step(options: argparse.Namespace, device: torch.device) -> Callable[[], Any]:
    torch.manual_seed(0)
    step = ReferenceStep(device)
    source, target = batch_of(options, device)
    return lambda: step(source, target)


def our_step(options: argparse.Namespace, device: torch.device) -> Callable[[], Any]:
    """The trainer's own step; its losses stay on the device, as they do between two lines of its log."""
    config: TrainingConfig = preset_config(
        options.preset,
        image_size=str(options.image_size),
        batch_size=options.batch_size,
        mixed_precision=options.mixed_precision,
        compile=options.compile,
    )
    accelerator = make_accelerator(config, Path(tempfile.gettempdir()))
    if device.type == "cpu":
        keep_freed_memory()
    learner = make_learner(accelerator, config, 3, 3, total_steps=1_000_000)
    learner.generator.train()
    learner.discriminator.train()
    source, target = batch_of(options, accelerator.device)
    return lambda: learner.step(source, target)


MAKERS: dict[str, Callable[[argparse.Namespace, torch.device], Callable[[], Any]]] = {
    "reference": reference_step,
    "ours": our_step,
}

if __name__ == "__main__":
    main()
