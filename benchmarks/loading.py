"""How long does a model take to load, and how much memory?

    python benchmarks/loading.py --json

Writes an export of the default generator (44,189,891 parameters, 177 MB) to a temporary folder and loads it in fresh
processes, from where `import torch` has ended: time, with the imports of this package, and peak resident memory, as a
multiple of the weights. The file is in the system's cache by then. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout needs no installation

PAGE = resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=3, help="fresh processes, of which the slowest counts")
    parser.add_argument("--json", action="store_true", help="last line: one JSON object")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)  # what the fresh processes are told
    options = parser.parse_args()
    if options.load:
        say(json.dumps(load(options.load)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_export(Path(folder))
        results = [load_afresh(folder) for _ in range(options.runs)]
    result = {key: max(result[key] for result in results) for key in results[0]}
    if options.json:
        say(json.dumps(result))
    else:
        say(f"{result['seconds']} s, peak {result['peak_over_weights']} times the weights' {result['weights_mb']} MB")


def write_export(folder: Path) -> None:
    from pix2pix_hub.models import UNetGenerator

    UNetGenerator().save_files(folder)


def load_afresh(folder: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--load", folder]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def load(folder: Path) -> dict[str, float]:
    """In a process that has imported torch and nothing of this package."""
    before, start = resident_bytes(), time.perf_counter()
    from pix2pix_hub.models import load_generator

    network = load_generator(folder)
    seconds = time.perf_counter() - start
    weights = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": round(seconds, 3),
        "weights_mb": round(weights / 1e6, 1),
        "peak_over_weights": round((peak - before) / weights, 3),
        "torch_mb": round(before / 1e6, 1),
        "threads": torch.get_num_threads(),
    }


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
