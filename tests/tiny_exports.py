"""Exports of tiny, untrained networks, and pixels to feed them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pix2pix_hub.config import MakerOptions
from pix2pix_hub.export import PREPROCESSOR_NAME, Preprocessor
from pix2pix_hub.image.format import RGB, PixelFormat
from pix2pix_hub.models import PatchGANDiscriminator, UNetGenerator

EXPORT_FILES = (  # that a run writes, without the card
    "config.json",
    "discriminator/config.json",
    "discriminator/model.safetensors",
    "metrics.json",
    "model.safetensors",
    "preprocessor_config.json",
    "samples.png",
    "training_config.json",
)
GRAY = PixelFormat("gray", 1)
GRAY16 = PixelFormat("gray", 1, "uint16", 0.0, 65535.0)
RGB16 = PixelFormat("rgb", 3, "uint16", 0.0, 65535.0)
LABELS = PixelFormat("labels", 3, classes=(0, 7, 200), colors=((9, 8, 7), (255, 0, 0), (0, 0, 255)))


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """All values of an integer dtype; floats in [0, 1]."""
    random = np.random.default_rng(seed)
    if dtype == "float32":
        return random.random(shape, np.float32)
    return random.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def write_tiny_export(
    folder: Path,
    source: PixelFormat = RGB,
    target: PixelFormat = RGB,
    *,
    size: int = 32,
    discriminator: bool = True,
    seed: int = 0,
    maker: MakerOptions | None = None,
    **options: Any,
) -> Path:
    """An export whose generator is `UNetGenerator(base_channels=2, num_downs=3, **options)`."""
    torch.manual_seed(seed)
    options = {"base_channels": 2, "num_downs": 3} | options
    generator = UNetGenerator(source.channels, target.channels, **options)
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.5)  # far from gray, so that differences show
    generator.save_files(folder)
    config = Preprocessor(source, target, (size, size), "exact", generator.size_multiple, maker).to_dict()
    (folder / PREPROCESSOR_NAME).write_text(json.dumps(config))
    if discriminator:
        judge = PatchGANDiscriminator(source.channels + target.channels, base_channels=2)
        judge.save_files(folder / judge.hub_subfolder)
    return folder
