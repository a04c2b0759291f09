"""Does memory stay bounded while a set is streamed?

    python benchmarks/streaming_memory.py --workers 2 --shuffle-buffer 1000 --json

Writes 20,000 pairs of 64x64 PNGs in 20 Parquet shards to a temporary folder, reads and augments them as training
does, and prints the memory (resident set sizes of this process and its workers, summed; pages that they share count
more than once) after 1,000 and after 15,000 pairs, and the ratio. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
from accelerate import Accelerator
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout needs no installation

from pix2pix_hub.config import PairOptions, preset_config
from pix2pix_hub.data.stream import open_stream
from pix2pix_hub.training.loaders import TrainLoader

SHARDS, PAIRS_PER_SHARD, SIZE = 20, 1000, 64
MARKS = (1_000, 5_000, 10_000, 15_000)  # pairs
FIRST, LAST = 1_000, 15_000


def main() -> None:
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder))
        memory = stream(folder, options)
    result = {"workers": options.workers, "shuffle_buffer": options.shuffle_buffer, "memory_mib": memory}
    result["ratio"] = round(memory[LAST] / memory[FIRST], 4)
    if options.json:
        say(json.dumps(result))
    else:
        say(f"{LAST} pairs: {result['ratio']} times the memory after {FIRST}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shuffle-buffer", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="last line: one JSON object")
    return parser.parse_args()


def write_set(folder: Path) -> None:
    """Noise, which no format makes small: held in memory, 14,000 of these pairs would take 330 MiB."""
    features = Features({"source": ImageFeature(), "target": ImageFeature()})
    draw = np.random.default_rng(0)
    for shard in range(SHARDS):
        rows = [{side: {"bytes": png(draw), "path": None} for side in features} for _ in range(PAIRS_PER_SHARD)]
        Dataset.from_list(rows, features=features).to_parquet(folder / f"train-{shard:05}-of-{SHARDS:05}.parquet")
    size = sum(file.stat().st_size for file in folder.iterdir())
    say(f"{SHARDS * PAIRS_PER_SHARD} pairs in {SHARDS} shards, {size / 2**20:.0f} MiB")


def png(draw: np.random.Generator) -> bytes:
    buffer = BytesIO()
    pixels = draw.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def stream(folder: str, options: argparse.Namespace) -> dict[int, float]:
    """Pairs read → MiB."""
    config = preset_config(
        "demo",
        dataset=folder,
        image_size="64",
        streaming=True,
        batch_size=options.batch_size,
        num_workers=options.workers,
        shuffle_buffer=options.shuffle_buffer,
    )
    pairs = open_stream(PairOptions(folder, image_size=str(SIZE)), options.shuffle_buffer)
    say(pairs.description)
    loader = TrainLoader(Accelerator(cpu=True), config, pairs)
    memory: dict[int, float] = {}
    seen = 0
    for batch in loader.rest_of_epoch(0, 0):
        seen += len(batch["index"])
        if len(memory) < len(MARKS) and seen >= MARKS[len(memory)]:
            memory[MARKS[len(memory)]] = round(resident_mib(), 1)
            say(f"{seen:6d} pairs  {resident_mib():8.1f} MiB")
    assert seen == len(pairs.train)
    return memory


def resident_mib() -> float:
    process = psutil.Process()
    tree = [process, *process.children(recursive=True)]
    return sum(member.memory_info().rss for member in tree) / 2**20


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
