"""The first hour on a GPU: does everything run there without waiting, and how fast is it?

    python benchmarks/gpu.py --file gpu.json                   # all parts, each in less than nine minutes
    python benchmarks/gpu.py --file gpu.json --parts steps     # one of them; the file keeps what it has of the others
    python benchmarks/gpu.py --file gpu.json --dataset path/to/facades --direction BtoA

- `check`: `train_accelerate.py --dry-run`, then the trainer from pairs to an export in each precision; a step that
  makes the host wait for the GPU is an error there (but in fp16, whose scaler must look at gradients).
- `steps`: steps of two presets and of `reference.py` at batches 1 and 16, `--steps` of them between two waits; the
  time until they are issued is the host's.
- `runs`: `end_to_end.py` at batches 1 and 16, ours and the reference.
- `inference`: `Pix2PixPipeline` from 8-bit arrays to 8-bit arrays, in each precision.

One table is printed, `docs/performance.md` says where its numbers go. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import inference
import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState
from train_step import our_step, reference_step

from pix2pix_hub.config import preset_config
from pix2pix_hub.inference.pipeline import Pix2PixPipeline
from pix2pix_hub.training.trainer import Pix2PixTrainer
from pix2pix_hub.util import write_json

PART_SECONDS = 500  # after which a part begins nothing more
PRECISIONS = ("bf16", "fp16", "no")
BATCHES = (1, 16)
Row = dict[str, Any]  # "what", and numbers by their names and units


def main() -> None:
    options = parse_arguments()
    device = common.set_up(options)
    found = json.loads(options.file.read_text())["parts"] if options.file.is_file() else {}
    for part in options.parts:
        until = time.monotonic() + PART_SECONDS
        found[part] = []
        for row in PARTS[part](options, device, until):
            found[part].append(row)
            sys.stdout.write(f"{part}: {_words(row)}\n")
            sys.stdout.flush()
            machine = common.machine(device)
            write_json(options.file, {"benchmark": "gpu", "machine": machine, "steps": options.steps, "parts": found})
            if time.monotonic() > until:
                sys.stdout.write(f"{part}: the rest is left out, after {PART_SECONDS} seconds\n")
                break
        _forget()
    lines = ["| part | what | found |", "|---|---|---|"]
    lines += [f"| {part} | {_words(row, ' | ')} |" for part, rows in found.items() for row in rows]
    sys.stdout.write("\n".join(["", common.machine(device), "", *lines]) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = common.parser(__doc__ or "")
    parser.set_defaults(device="cuda", rounds=5)
    parser.add_argument("--file", type=Path, required=True, help="JSON that is written, part by part")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--steps", type=int, default=50, help="between two waits for the GPU")
    parser.add_argument("--epochs", type=int, nargs=2, default=(2, 20), help="of `runs`, at batches 1 and 16")
    parser.add_argument("--pairs", type=int, default=400, help="training pairs of `runs`, without --dataset")
    parser.add_argument("--images", type=int, default=256, help="of `inference`")
    parser.add_argument("--dataset", help="of `runs`: folder of side-by-side images in train/ and val/")
    parser.add_argument("--direction", default="AtoB", choices=("AtoB", "BtoA"))
    return parser.parse_args()


def check(options: argparse.Namespace, device: torch.device, until: float) -> Iterator[Row]:
    """Yield what a dry run says of the device, and how a short run of each precision ended."""
    command = [sys.executable, "train_accelerate.py", "--preset", "paper", "--dry-run"]
    said = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True, timeout=until - time.monotonic())
    lines = (said.stdout + said.stderr).strip().splitlines()
    about = next((line for line in lines if line.startswith("device")), lines[-1])
    yield {"what": "dry run", "status": said.returncode, "said": " ".join(about.split())}
    for precision in PRECISIONS:
        yield {"what": f"run of {options.steps} steps, {precision}", **_short_run(options, precision)}


def _short_run(options: argparse.Namespace, precision: str) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        config = preset_config(
            "paper",
            max_steps=options.steps,
            max_train_pairs=options.steps,
            max_validation_pairs=20,
            mixed_precision=precision,
            output_dir=str(Path(folder) / "run"),
        )
        torch.cuda.reset_peak_memory_stats()
        trainer = Pix2PixTrainer(config)
        step, taken = trainer.learner.step, 0

        def watched(source: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
            nonlocal taken
            taken += 1
            warm = taken > 3 and precision != "fp16"
            torch.cuda.set_sync_debug_mode("error" if warm else "default")
            try:
                return step(source, target)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        trainer.learner = dataclasses.replace(trainer.learner, step=watched)  # type: ignore[arg-type]
        try:
            result = trainer.train()
        except RuntimeError as error:
            return {"failed": f"step {taken}: {str(error).splitlines()[0]}"}
        finally:
            _forget()
        seconds = trainer.progress.elapsed_seconds / result.step
        return {"ms a step": round(seconds * 1e3, 2), "L1": round(result.metrics["l1"], 4), "MiB": _peak()}


def steps(options: argparse.Namespace, device: torch.device, until: float) -> Iterator[Row]:
    """Yield the time of a step by preset, precision and batch, the reference's (float32) in turns with ours."""
    for batch_size, precision in itertools.product(BATCHES, ("bf16", "no")):
        _forget()  # the precision before
        shared = {"batch_size": batch_size, "image_size": 256, "compile": "auto", "mixed_precision": precision}
        made: dict[str, Callable[[], Any]] = {
            f"{name}, {precision}": our_step(argparse.Namespace(preset=name, **shared), device)
            for name in ("paper", "default")
        }
        made["reference, float32"] = reference_step(argparse.Namespace(**shared), device)
        issued: dict[str, list[float]] = {name: [] for name in made}

        def block(name: str, issued: dict[str, list[float]] = issued, made: dict[str, Any] = made) -> None:
            start = time.perf_counter()
            for _ in range(options.steps):
                made[name]()
            issued[name].append((time.perf_counter() - start) / options.steps)

        calls = {name: (lambda name=name: block(name)) for name in made}
        for name, seconds in common.alternate(calls, options.rounds, device, warm_up=1).items():
            median = statistics.median(seconds) / options.steps
            host = statistics.median(issued[name])
            rate = {"images a second": round(batch_size / median, 1)}
            yield {"what": f"{name}, batch {batch_size}", "ms": _ms(median), "host ms": _ms(host), **rate}


def runs(options: argparse.Namespace, device: torch.device, until: float) -> Iterator[Row]:
    """Yield what whole runs take."""
    for batch_size, epochs in zip(reversed(BATCHES), reversed(options.epochs), strict=True):
        script = [sys.executable, str(common.ROOT / "benchmarks" / "end_to_end.py"), "--device", device.type, "--json"]
        script += ["--rounds", "1", "--batch-size", str(batch_size), "--epochs", str(epochs)]
        script += ["--pairs", str(options.pairs), "--direction", options.direction]
        script += ["--dataset", options.dataset] if options.dataset else []
        what = f"{epochs} epochs at batch {batch_size}"
        try:
            said = subprocess.run(script, capture_output=True, text=True, timeout=max(1.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            yield {"what": what, "failed": "not done in time: give fewer --epochs"}
            return
        if said.returncode:
            yield {"what": what, "failed": said.stderr.strip().splitlines()[-1]}
            continue
        result = json.loads(said.stdout.splitlines()[-1])
        seconds = {f"{name}, seconds": round(result[name]["seconds"], 1) for name in ("ours", "reference")}
        yield {"what": what, **seconds, "ratio": result["ratio"], "MiB": result["ours"]["peak_mib"]}


def inferences(options: argparse.Namespace, device: torch.device, until: float) -> Iterator[Row]:
    """Yield images a second, as a folder's files come after decoding."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (256, 256, 3), np.uint8) for _ in range(options.images)]
    with tempfile.TemporaryDirectory() as folder:
        inference.write_models(Path(folder), 256)
        for dtype in ("bf16", "fp16", "float32"):
            pipe = Pix2PixPipeline.from_pretrained(folder, device=device, dtype=dtype)
            for batch_size in (1, None):
                call = lambda pipe=pipe, size=batch_size: pipe(images, batch_size=size)  # noqa: E731
                (seconds,) = common.alternate({"all": call}, options.rounds, device, warm_up=1).values()
                median = statistics.median(seconds) / len(images)
                batch = "its own batch" if batch_size is None else f"batch {batch_size}"
                yield {"what": f"{dtype}, {batch}", "ms an image": _ms(median), "images a second": round(1 / median, 1)}


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _peak() -> int:
    return round(torch.cuda.max_memory_allocated() / 2**20)


def _forget() -> None:
    """Leave Accelerate, which keeps its state in singletons, as a process of its own would find it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def _words(row: Row, between: str = ": ") -> str:
    return row["what"] + between + ", ".join(f"{name} {value}" for name, value in row.items() if name != "what")


PARTS: dict[str, Callable[[argparse.Namespace, torch.device, float], Iterator[Row]]] = {
    "check": check,
    "steps": steps,
    "runs": runs,
    "inference": inferences,
}

if __name__ == "__main__":  # workers import this file anew
    main()
