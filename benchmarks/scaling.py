"""How fast does training go at other image sizes, batch sizes and numbers of processes?

    python benchmarks/scaling.py --file scaling.json --sizes 64 128 256 --batch-sizes 1 4
    python benchmarks/scaling.py --file scaling.json --sizes 512 1024 --batch-sizes 1     # adds to the file
    python benchmarks/scaling.py --file scaling.json --sizes 256 --batch-sizes 4 --processes 2
    python benchmarks/scaling.py --file scaling.json --plot docs/training_cost.png

Preset `default`'s networks, the trainer's own step on one random batch. Each point runs in a process of its own (with
`--processes`, several, which share the cores, the batch size being that of each) and takes its place in `--file`, with
median seconds a step, images/s over all processes and peak memory (MiB) of one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
import torch
from train_step import our_step

WARM_UP, STEPS, SECONDS = 2, 3, 4.0  # untimed steps; at least so many timed ones, and so long


def main() -> None:
    options = parse_arguments()
    if options.worker:
        work(options)
        return
    path = Path(options.file)
    found = json.loads(path.read_text()) if path.exists() else {"machine": "", "points": []}
    if options.plot:
        draw(found, Path(options.plot))
        return
    found["machine"] = common.machine(common.set_up(options))
    for size in options.sizes:
        for batch_size in options.batch_sizes:
            point = {"image_size": size, "batch_size": batch_size, "processes": options.processes}
            point |= measure(options, size, batch_size)
            sys.stdout.write(json.dumps(point) + "\n")
            sys.stdout.flush()
            others = [other for other in found["points"] if place(other) != place(point)]
            found["points"] = sorted([*others, point], key=place)
            path.write_text(json.dumps(found, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = common.parser(__doc__ or "")
    parser.set_defaults(preset="default", mixed_precision="auto", compile="auto")
    parser.add_argument("--file", default="scaling.json", help="results, read and added to")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256], help="pixels a side")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--plot", help="draw the file's results into this PNG, measure nothing")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def place(point: dict[str, Any]) -> tuple[int, int, int]:
    return point["processes"], point["image_size"], point["batch_size"]


def measure(options: argparse.Namespace, size: int, batch_size: int) -> dict[str, Any]:
    """One point, in processes of its own."""
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(options.processes)]
    words = [__file__, "--worker", "--device", options.device, "--threads", str(options.threads // options.processes)]
    words += ["--sizes", str(size), "--batch-sizes", str(batch_size), "--processes", str(options.processes)]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads // options.processes)}
    if options.device == "cpu":
        environment["ACCELERATE_USE_CPU"] = "true"
    command = [sys.executable, *(launcher if options.processes > 1 else []), *words]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(finished.stdout.splitlines()[-1])


def work(options: argparse.Namespace) -> None:
    """Time steps in this process; the first of several answers for all."""
    device = common.set_up(options)
    options.image_size, options.batch_size = options.sizes[0], options.batch_sizes[0]
    step = our_step(options, device)
    for _ in range(WARM_UP):
        step()
    seconds: list[float] = []
    while len(seconds) < STEPS or (options.processes == 1 and sum(seconds) < SECONDS):
        common.synchronise(device)
        start = time.perf_counter()
        step()
        common.synchronise(device)
        seconds.append(time.perf_counter() - start)
    if int(os.environ.get("RANK", 0)) == 0:
        median = statistics.median(seconds)
        images = options.batch_size * options.processes / median
        answer = {"seconds": round(median, 4), "images_per_second": round(images, 3)}
        sys.stdout.write(json.dumps(answer | {"peak_mib": round(common.own_peak(device))}) + "\n")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def draw(found: dict[str, Any], path: Path) -> None:
    """Megapixels a second over the image's side, a line for each batch size and number of processes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    speed, memory = figure.subplots(1, 2)
    kinds = sorted({(point["processes"], point["batch_size"]) for point in found["points"]})
    for processes, batch_size in kinds:
        points = [
            point for point in found["points"] if (point["processes"], point["batch_size"]) == (processes, batch_size)
        ]
        sizes = [point["image_size"] for point in points]
        label = f"batch {batch_size}" + (f", {processes} processes" if processes > 1 else "")
        pixels = [point["images_per_second"] * point["image_size"] ** 2 / 1e6 for point in points]
        style = "o--" if processes > 1 else "o-"
        speed.plot(sizes, pixels, style, label=label)
        memory.plot(sizes, [point["peak_mib"] / 1024 for point in points], style, label=label)
    for axes, title in ((speed, "training, megapixels a second"), (memory, "peak memory of a process, GiB")):
        axes.set(title=title, xlabel="pixels a side", xscale="log", ylim=(0, None))
        sizes = sorted({point["image_size"] for point in found["points"]})
        axes.set_xticks(sizes, labels=[str(size) for size in sizes], minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    speed.legend()
    figure.suptitle(found["machine"], fontsize="small")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
