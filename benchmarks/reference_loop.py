"""The training loop around `reference.py`'s step, as plain as that: files decoded at every step, nothing cached.

Shares no code with the package.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy
import torch
from PIL import Image
from reference import ReferenceStep
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

JITTER = 286 / 256  # the paper's: enlarged by this much, then cropped at random


class SideBySide(Dataset):
    """Files of a folder → (source, target), each (3, size, size) in [-1, 1]; jittered and mirrored where `augment`."""

    def __init__(self, folder: Path, size: int, augment: bool) -> None:
        self.files = sorted(folder.iterdir())
        self.size, self.augment = size, augment

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = Image.open(self.files[index]).convert("RGB")
        middle = image.width // 2
        halves = [image.crop((left, 0, left + middle, image.height)) for left in (0, middle)]
        larger = round(self.size * JITTER) if self.augment else self.size
        left, top = (random.randint(0, larger - self.size) for _ in range(2))
        flip = self.augment and random.random() < 0.5
        tensors = []
        for half in halves:
            pixels = numpy.array(half.resize((larger, larger), Image.Resampling.BICUBIC))
            cut = pixels[top : top + self.size, left : left + self.size]
            tensor = torch.from_numpy(cut[:, ::-1].copy() if flip else cut.copy())
            tensors.append(tensor.permute(2, 0, 1).float() / 127.5 - 1)
        return tensors[0], tensors[1]


def reference_run(dataset: Path, size: int, batch_size: int, epochs: int, device: torch.device, output: Path) -> None:
    """Train on `dataset`/train, measure L1 on `dataset`/val after every epoch, keep the weights at the end."""
    step = ReferenceStep(device)
    loader = DataLoader(SideBySide(dataset / "train", size, True), batch_size, shuffle=True, num_workers=2)
    validation = DataLoader(SideBySide(dataset / "val", size, False), batch_size)
    for _ in range(epochs):
        for source, target in loader:
            step(source.to(device), target.to(device))
        with torch.no_grad():
            for source, target in validation:
                step.l1(step.generator(source.to(device)), target.to(device)).item()
    torch.save([step.generator.state_dict(), step.discriminator.state_dict()], output / "weights.pt")
