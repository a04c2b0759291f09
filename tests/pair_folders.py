"""Pairs as files in two folders, for the tests of whatever reads pairs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


def write_sides(
    root: Path, sources: Iterable[Any], targets: Iterable[Any], folders: tuple[str, str] = ("A", "B")
) -> Path:
    """`root/A/0.png`, …: PIL images as PNG, arrays as .npy."""
    for folder, images in zip(folders, (sources, targets), strict=True):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images):
            if isinstance(image, np.ndarray):
                np.save(root / folder / f"{index}.npy", image)
            else:
                image.save(root / folder / f"{index}.png")
    return root
