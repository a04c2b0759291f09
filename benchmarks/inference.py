"""How long does one image take, in a server that is warm and right after a start, against plain eager float32?

    python benchmarks/inference.py --device cpu --batch-sizes 1 2 4 8 16 32 --json

Preset `paper`'s generator at 256x256: `Pix2PixPipeline` from tensors to tensors, as it is ("ours") and with
`compile=True`, beside `reference.py`'s network, eager and float32, all taking turns in processes of their own. Then
loading and the first image, in fresh processes that have imported everything. Printed for each batch size: median,
spread, images/s, GFLOP, share of the rate at which this device multiplies float32 matrices, peak memory; "ratio" is
ours compiled ÷ reference in images/s at the first batch size, "ratio_eager" ours as it is. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import torch
import turns
from reference import ReferenceGenerator

from pix2pix_hub.config import preset_config
from pix2pix_hub.devices import keep_freed_memory
from pix2pix_hub.export import PREPROCESSOR_NAME, Preprocessor
from pix2pix_hub.image.format import RGB
from pix2pix_hub.inference.pipeline import Pix2PixPipeline
from pix2pix_hub.models import UNetGenerator

REFERENCE_WEIGHTS = "reference.pt"
NAMES = ("reference", "ours", "ours, compiled")


def main() -> None:
    options = parse_arguments()
    device = common.set_up(options)
    if options.first:
        sys.stdout.write(f"{first_image(options, device)}\n")
        return
    if options.only:
        call = server(options.only, options, device)
        reference = server("reference", options, device) if options.only != "reference" else call
        turns.serve(call, device, lambda: common.count_flop(reference))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder), options.image_size)
        table, rates = {}, []
        for batch_size in options.batch_sizes:
            arguments = [*sys.argv[1:], "--folder", folder, "--batch-size", str(batch_size)]
            measured, some = turns.take_turns(__file__, arguments, NAMES, options.rounds, device)
            rates += some
            for name, found in measured.items():
                row = common.summary(found.seconds, batch_size, found.flop, statistics.median(some))
                table[f"{name}, batch {batch_size}"] = row | {"peak_mib": found.peak_mib}
        firsts = first_images(folder, options)
    first = options.batch_sizes[0]
    rate_of = {name: table[f"{name}, batch {first}"]["images_per_second"] for name in NAMES}
    result = {
        "benchmark": "inference",
        "machine": common.machine(device),
        "image_size": options.image_size,
        "dtype": options.dtype,
        "multiply_gflop_per_second": round(statistics.median(rates) / 1e9, 1),
        "first_image_seconds": firsts,
        "ratio": round(rate_of["ours, compiled"] / rate_of["reference"], 3),
        "ratio_eager": round(rate_of["ours"] / rate_of["reference"], 3),
        **table,
    }
    common.report(result, table, options.json)


def parse_arguments() -> argparse.Namespace:
    parser = common.parser(__doc__ or "")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1])
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bf16", "fp16"), help="of ours")
    parser.add_argument("--starts", type=int, default=5, help="fresh processes of each, for the first image")
    parser.add_argument("--batch-size", type=int, default=1, help=argparse.SUPPRESS)  # what own processes are told
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--first", choices=NAMES[:2], help=argparse.SUPPRESS)
    return parser.parse_args()


def write_models(folder: Path, size: int) -> None:
    """An export of preset `paper`'s generator, and the reference's weights, both as drawn."""
    torch.manual_seed(0)
    options = preset_config("paper", image_size=str(size)).generator_options()
    generator = UNetGenerator(**options)
    generator.save_files(folder)
    content = Preprocessor(RGB, RGB, (size, size), "exact", generator.size_multiple).to_dict()
    (folder / PREPROCESSOR_NAME).write_text(json.dumps(content))
    torch.save(ReferenceGenerator().state_dict(), folder / REFERENCE_WEIGHTS)


def server(name: str, options: argparse.Namespace, device: torch.device) -> Callable[[], Any]:
    """What answers with the translation of one fixed batch, brought back to the CPU."""
    shape = (options.batch_size, 3, options.image_size, options.image_size)
    source = torch.rand(shape, generator=torch.Generator().manual_seed(0)).mul(2).sub(1)
    if name == "reference":
        network = ReferenceGenerator()
        network.load_state_dict(torch.load(Path(options.folder) / REFERENCE_WEIGHTS, weights_only=True))
        network.to(device).eval()
        return lambda: _plainly(network, source.to(device)).cpu()
    keep_freed_memory()  # as the commands do
    pipe = Pix2PixPipeline.from_pretrained(
        options.folder, device=str(device), dtype=options.dtype, compile=name == "ours, compiled"
    )
    return lambda: pipe(source, batch_size=options.batch_size)


@torch.no_grad()
def _plainly(network: torch.nn.Module, source: torch.Tensor) -> torch.Tensor:
    return network(source)


def first_image(options: argparse.Namespace, device: torch.device) -> float:
    """Seconds from a file of weights to the first image."""
    started = time.perf_counter()
    server(options.first, options, device)()
    common.synchronise(device)
    return time.perf_counter() - started


def first_images(folder: str, options: argparse.Namespace) -> dict[str, float]:
    """Medians, in fresh processes that take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in NAMES[:2]}
    for _ in range(options.starts):
        for name, found in seconds.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--folder", folder, "--first", name]
            finished = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(float(finished.stdout.splitlines()[-1]))
    return {name: round(statistics.median(found), 3) for name, found in seconds.items()}


if __name__ == "__main__":
    main()
