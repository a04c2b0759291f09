"""How many images/s does the input pipeline give by itself, and how many does the training step take?

    python benchmarks/input_pipeline.py --preset paper --json

Files of side-by-side pairs (synthetic ones, JPEG, 256x512, unless --dataset names others) are read and augmented as in
training, epoch after epoch: by plain code (`plain`: every image decoded and put through torchvision's transforms in
every epoch, no processes beside), by ours without a cache and with pairs kept in memory, with 0, 1 and 2 workers; all
taking turns. `step` is the trainer's own step on a fixed batch. "ratio" is the best of ours with a cache ÷ the step,
"ratio_to_plain" ours with a cache ÷ plain, both without workers. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import torch
from accelerate import Accelerator
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from pix2pix_hub.config import PairOptions, TrainingConfig, preset_config
from pix2pix_hub.data.pairs import PairSplits, load_pairs
from pix2pix_hub.synthetic import render_pair
from pix2pix_hub.training.loaders import TrainLoader, make_cache
from pix2pix_hub.training.setup import make_accelerator, make_learner

PAIRS, TRAINING = 120, 100  # files written, and how many of them are trained on
WORKERS = (0, 1, 2)


def main() -> None:
    options = parse_arguments()
    device = common.set_up(options)
    with tempfile.TemporaryDirectory() as folder:
        dataset = options.dataset or str(write_pairs(Path(folder) / "pairs", options.image_size))
        config: TrainingConfig = preset_config(
            options.preset,
            dataset=dataset,
            image_size=str(options.image_size),
            batch_size=options.batch_size,
            max_train_pairs=options.pairs,
        )
        accelerator = make_accelerator(config, Path(folder))
        pairs = load_pairs(
            PairOptions(dataset, image_size=config.image_size, max_train_pairs=options.pairs, max_validation_pairs=4)
        )
        started = time.perf_counter()
        kept = ours(accelerator, config, pairs, "memory", 0)
        filling, nbytes = time.perf_counter() - started, kept.dataset.prepared.nbytes
        epochs: dict[str, Callable[[], Any]] = {"plain": plain_epoch(config, pairs)}
        for cache in ("off", "memory"):
            for workers in WORKERS:
                loader = kept if (cache, workers) == ("memory", 0) else ours(accelerator, config, pairs, cache, workers)
                epochs[f"cache {cache}, {workers} workers"] = epoch_of(loader)
        seconds = common.alternate(epochs, options.rounds, device, warm_up=1)
        step, step_images = training_step(accelerator, config), options.batch_size
        seconds["step"] = common.alternate({"step": step}, options.rounds, device)["step"]
    table = {
        name: row(seconds[name], step_images if name == "step" else len(pairs.train)) for name in (*epochs, "step")
    }
    rates = {name: entry["images_per_second"] for name, entry in table.items()}
    best = max(rates[f"cache memory, {workers} workers"] for workers in WORKERS)
    result = {
        "benchmark": "input_pipeline",
        "machine": common.machine(device),
        "preset": options.preset,
        "pairs": pairs.description,
        "batch_size": options.batch_size,
        "cache_mb": round(nbytes / 1e6, 1),
        "cache_kb_per_pair": round(nbytes / len(pairs.train) / 1e3, 1),
        "cache_filling_seconds": round(filling, 3),
        "ratio": round(best / rates["step"], 1),
        "ratio_to_plain": round(rates["cache memory, 0 workers"] / rates["plain"], 2),
        **table,
    }
    common.report(result, table, options.json)


def parse_arguments() -> argparse.Namespace:
    parser = common.parser(__doc__ or "")
    parser.add_argument("--dataset", help="pairs to read; without it synthetic ones, written to a temporary folder")
    parser.add_argument("--pairs", type=int, default=TRAINING, help="of them that make an epoch")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--preset", default="default", choices=("paper", "default", "compact", "demo"))
    return parser.parse_args()


def write_pairs(folder: Path, size: int) -> Path:
    """JPEG files of A and B side by side."""
    (folder / "train").mkdir(parents=True)
    for number in range(PAIRS):
        both = Image.new("RGB", (2 * size, size))
        for place, image in enumerate(render_pair(number, size=(size, size), seed=0)):
            both.paste(image, (place * size, 0))
        both.save(folder / "train" / f"{number}.jpg", quality=90)
    return folder


def ours(accelerator: Accelerator, config: TrainingConfig, pairs: PairSplits, cache: str, workers: int) -> TrainLoader:
    """The trainer's loader, its cache filled."""
    config = replace(config, cache=cache, num_workers=workers)
    keeping = make_cache(accelerator, config, pairs)
    loader = TrainLoader(accelerator, config, pairs, keeping)
    keeping.fill(accelerator)
    return loader


def epoch_of(loader: TrainLoader) -> Callable[[], None]:
    """One pass over a loader; the next call takes the next epoch."""
    epoch = 0

    def run() -> None:
        nonlocal epoch
        for _ in loader.rest_of_epoch(epoch, 0):
            pass
        epoch += 1

    return run


class PlainPairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Decode the file, cut it in two, augment both alike: as one would write it down with torchvision."""

    def __init__(self, config: TrainingConfig, files: list[str]) -> None:
        height, width = config.image_height_width
        steps: list[Any] = [v2.RandomHorizontalFlip(config.flip_probability)]
        if config.rotation_degrees:
            steps.append(v2.RandomRotation(config.rotation_degrees, v2.InterpolationMode.BILINEAR))
        enlarged = [round(height * config.jitter_scale), round(width * config.jitter_scale)]
        self.geometry = v2.Compose([*steps, v2.Resize(enlarged), v2.RandomCrop((height, width))])
        strength = config.color_jitter
        self.color = v2.ColorJitter(strength, strength, strength) if strength else v2.Identity()
        self.to_tensor = v2.Compose(
            [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
        )
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        both = Image.open(self.files[index]).convert("RGB")
        width, height = both.size
        source, target = both.crop((0, 0, width // 2, height)), both.crop((width // 2, 0, width, height))
        source, target = self.geometry(source, target)
        return self.to_tensor(self.color(source)), self.to_tensor(target)


def plain_epoch(config: TrainingConfig, pairs: PairSplits) -> Callable[[], None]:
    files = [pairs.train.row(index)["image"]["path"] for index in range(len(pairs.train))]
    return epoch_of_plain(DataLoader(PlainPairs(config, files), batch_size=config.batch_size, shuffle=True))


def epoch_of_plain(loader: DataLoader[Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in loader:
            pass

    return run


def training_step(accelerator: Accelerator, config: TrainingConfig) -> Callable[[], Any]:
    """The trainer's own step on one random batch."""
    learner = make_learner(accelerator, config, 3, 3, total_steps=1_000_000)
    learner.generator.train()
    learner.discriminator.train()
    shape = (2, config.batch_size, 3, *config.image_height_width)
    source, target = torch.rand(shape).mul(2).sub(1).to(accelerator.device)
    return lambda: learner.step(source, target)


def row(seconds: list[float], images: int) -> dict[str, float]:
    """Median, spread and images/s; there are no multiplications to count."""
    entries = common.summary(seconds, images, 0, 1.0)
    return {name: entries[name] for name in ("seconds", "spread", "images_per_second")}


if __name__ == "__main__":
    main()
