"""What the benchmarks share: two things timed alternately, what they cost, and how fast this machine multiplies."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # a checkout needs no installation


def parser(description: str) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    options = argparse.ArgumentParser(description=description.splitlines()[0])
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="CPU threads")
    options.add_argument("--rounds", type=int, default=10, help="timed rounds, each of all things compared")
    options.add_argument("--json", action="store_true", help="last line: one JSON object")
    return options


def set_up(options: argparse.Namespace) -> torch.device:
    """The device asked for, which Accelerate then takes in this process, too; CPU threads set.

    Raises:
        SystemExit: there is no such device.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no CUDA device here. Try --device cpu.")
    os.environ["ACCELERATE_USE_CPU"] = str(options.device == "cpu").lower()
    torch.set_num_threads(options.threads)
    return torch.device(options.device)


def alternate(
    things: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device, warm_up: int = 2
) -> dict[str, list[float]]:
    """Seconds of each call, the things taking turns, so that a slow moment of the machine strikes all of them."""
    for _ in range(warm_up):
        for call in things.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for _ in range(rounds):
        for name, call in things.items():
            synchronise(device)
            start = time.perf_counter()
            call()
            synchronise(device)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def synchronise(device: torch.device) -> None:
    """Wait for a GPU to finish."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def summary(seconds: list[float], images: int, flop: int, flop_per_second: float) -> dict[str, float]:
    """Median, spread (half the distance of the quartiles over the median), images/s, share of the multiply rate."""
    median = statistics.median(seconds)
    low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else (median, median, median)
    return {
        "seconds": round(median, 5),
        "spread": round((high - low) / 2 / median, 3),
        "images_per_second": round(images / median, 3),
        "gflop": round(flop / 1e9, 2),
        "multiply_share": round(flop / median / flop_per_second, 3),
    }


def count_flop(call: Callable[[], Any]) -> int:
    """Floating point operations of the multiplications in one call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def multiply_rate(device: torch.device, dtype: torch.dtype, rounds: int = 5) -> float:
    """FLOP/s of a large matrix product: the fastest of some."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = alternate({"product": lambda: left @ right}, rounds, device)["product"]
    return 2 * size**3 / min(seconds)


def peak_memory(script: str, arguments: list[str], names: list[str]) -> dict[str, float]:
    """MiB that each thing needs by itself: peak resident memory of a process of its own; on CUDA, of the allocator."""
    peaks = {}
    for name in names:
        finished = subprocess.run(
            [sys.executable, script, *arguments, "--memory-of", name], capture_output=True, text=True, check=True
        )
        peaks[name] = round(float(finished.stdout.splitlines()[-1]), 1)
    return peaks


def own_peak(device: torch.device) -> float:
    """MiB at most used by this process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count what the parent had before the exec
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 2**10


def machine(device: torch.device) -> str:
    """What this ran on, for a table's caption."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    names = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    units = ", ".join(
        unit
        for unit, check in {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}.items()
        if getattr(torch.cpu, check, bool)()
    )
    return (
        f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads, "
        f"{units or 'no bf16 units'}, torch {torch.__version__}"
    )


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def report(result: dict[str, Any], table: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    """Print a table of the things compared, then, if asked for, everything as one line of JSON."""
    columns = list(next(iter(table.values())))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(str(row[column]) for column in columns) + " |" for name, row in table.items()]
    sys.stdout.write("\n".join([f"{result['machine']}", "", *lines]) + "\n")
    sys.stdout.write((json.dumps(result) if as_json else f"ratio {result['ratio']}") + "\n")
