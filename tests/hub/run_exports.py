"""Exports as a run writes them, without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny_exports import EXPORT_FILES
from torchvision.utils import save_image

from pix2pix_hub.config import preset_config
from pix2pix_hub.export import Preprocessor, write_export
from pix2pix_hub.hub.package import WHEEL_NAME
from pix2pix_hub.image.format import RGB, PixelFormat
from pix2pix_hub.models import PatchGANDiscriminator, UNetGenerator

REPO = "tester/streets"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"README.md", *EXPORT_FILES}
PUSHED = FILES | {WHEEL_NAME, ".gitattributes"}


def make_export(
    folder: Path,
    seed: int = 0,
    source: PixelFormat = RGB,
    target: PixelFormat = RGB,
    command: str = "accelerate launch train_accelerate.py --dataset user/streets",
    **dataset: Any,
) -> Path:
    """A tiny model with the files of a run of 2 epochs on `user/streets`."""
    torch.manual_seed(seed)
    place, pairs = folder.parent, "6 training and 3 validation pairs, two columns, AtoB: label → photo"
    place.mkdir(parents=True, exist_ok=True)
    facts = {
        "options": preset_config("demo", dataset="user/streets", image_size="32x64").to_dict(),
        "command": command,
        "dataset": {"id": "user/streets", "pairs": pairs, "fingerprint": COMMIT, "left_out": 0, **dataset},
        "mixed_precision": "no",
        "processes": 1,
        "device": "cpu",
        "hardware": "Some CPU, 2 threads",
        "parameters": {"generator": 1234567, "discriminator": 1234},
        "versions": {"python": "3.11", "torch": "2.15"},
    }
    (place / "training_config.json").write_text(json.dumps(facts))
    save_image(torch.rand(3, 32, 96), place / "samples.png")
    generator = UNetGenerator(source.channels, target.channels, base_channels=4, num_downs=3)
    metrics = {"step": 6 + seed, "epoch": 2, "pairs": 3, "seconds": 3725.4, "d_loss": {"value": 0.5}}
    write_export(
        folder,
        generator,
        Preprocessor(source, target, (32, 64), "exact", generator.size_multiple),
        discriminator=PatchGANDiscriminator(source.channels + target.channels, base_channels=4),
        training_config=place / "training_config.json",
        metrics=metrics | {"l1": {"value": 0.1234567}, "psnr": {"value": 17.891}},
        samples=place / "samples.png",
    )
    return folder
