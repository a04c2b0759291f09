"""Pairs as files in two folders, for the tests of whatever reads pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_sides(
    root: Path,
    sources: Iterable[Any],
    targets: Iterable[Any],
    folders: Sequence[str] = ("A", "B"),
    suffixes: Sequence[str] = (".png", ".png"),
    stem: str = "{}",
) -> Path:
    """`root/A/0.png`, …: PIL images with those suffixes, arrays as .npy."""
    for folder, images, suffix in zip(folders, (sources, targets), suffixes, strict=True):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images):
            path = root / folder / stem.format(index)
            if isinstance(image, np.ndarray):
                np.save(f"{path}.npy", image)
            else:
                image.save(f"{path}{suffix}")
    return root
