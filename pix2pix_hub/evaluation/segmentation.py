"""The paper's task scores (Isola et al. 2017, section 4.1): do generated photos show what the label map asked for?

Its FCN score runs a network that segments photos over the generated ones and compares the result with the labels. Here
that network is trained on the set's own real photos (`segmenter.py`), so that no published weights are needed; the same
scores of the real photos stand beside it as what can be reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pix2pix_hub.data.pair_dataset import PairDataset
from pix2pix_hub.data.palette import class_colors, color_sample
from pix2pix_hub.data.pixels import PixelArray
from pix2pix_hub.evaluation.bootstrap import Floats, confidence_interval
from pix2pix_hub.images import PixelFormat, from_model_range
from pix2pix_hub.util import UserError

SCORES = ("pixel_accuracy", "class_accuracy", "class_iou")
LOOKED_AT = 40  # label maps in which the class colours are looked for


@dataclass(frozen=True)
class ClassMap:
    """From the pixels of a label map to numbers of classes, 0 up."""

    colors: tuple[tuple[int, int, int], ...] = ()  # of the classes in colour maps
    values: tuple[int, ...] = ()  # stored values of the classes, where there is one channel

    def __len__(self) -> int:
        return len(self.colors) or len(self.values)

    def of_stored(self, image: Tensor) -> Tensor:
        """A label map as stored, uint8 `(3, H, W)` or `(1, H, W)` → uint8 `(1, H, W)` of classes.

        A colour is the class whose colour is nearest, which undoes what JPEG does to it.
        """
        if self.values:
            table = torch.zeros(256, dtype=torch.uint8)
            table[list(self.values)] = torch.arange(len(self.values), dtype=torch.uint8)
            return table[image.long()]
        palette = torch.tensor(self.colors, dtype=torch.float32)  # (K, 3)
        # |x - c|² - |x|², whole numbers that float32 holds exactly
        offsets = palette.square().sum(1)[:, None] - 2 * palette @ image.flatten(1).float()
        return offsets.argmin(0).to(torch.uint8).view(1, *image.shape[1:])

    def of_generated(self, images: Tensor) -> Tensor:
        """Generated label maps, `(N, C, H, W)` in [-1, 1] → int64 `(N, H, W)` of classes."""
        if self.values:
            return images.argmax(1).cpu()
        return torch.stack([self.of_stored(image)[0].long() for image in from_model_range(images).cpu()])

    def to_format(self) -> PixelFormat:
        """How `of_stored`'s result is stored, for `PairTransform`."""
        numbers = tuple(range(len(self)))
        return PixelFormat("labels", len(self), classes=numbers, colors=self.colors)


def find_classes(pairs: PairDataset, side: str, task: str) -> ClassMap:
    """The classes of one side's label maps: those of the format, else the colours they are made of.

    Raises:
        UserError: the images of that side are no label maps.
    """
    stored = pairs.formats[side]
    if stored.mode == "labels":
        return ClassMap(values=stored.classes)
    place = ("source", "target").index(side)
    step = max(1, len(pairs) // LOOKED_AT)
    maps = [pairs[index][place].permute(1, 2, 0).numpy() for index in range(0, len(pairs), step)][:LOOKED_AT]
    colors = class_colors([color_sample(PixelArray(image, "rgb"), labels=False) for image in maps])
    if len(colors) < 2:
        raise UserError(
            f"--task {task} needs label maps as {side} images; these are {stored.describe()} of many colours. "
            "`pix2pix-hub data inspect` shows what they are; --direction swaps the sides."
        )
    return ClassMap(colors=tuple(colors))


def confusion(truth: Tensor, found: Tensor, classes: int) -> Tensor:
    """How many pixels of class i were found to be class j: (N, H, W) twice → float64 (N, K, K)."""
    pairs = (truth.long() * classes + found.long()).flatten(1)
    counts = torch.stack([torch.bincount(image, minlength=classes**2) for image in pairs])
    return counts.view(-1, classes, classes).double()


def class_scores(counts: Floats) -> dict[str, Floats]:
    """The scores of Long et al. 2015, section 5: (..., K, K) counts → (...,) each, in [0, 1].

    pixel_accuracy: Σ n_ii ÷ Σ n_ij. class_accuracy: mean over classes of n_ii ÷ t_i. class_iou: mean over classes of
    n_ii ÷ (t_i + Σ_j n_ji - n_ii). t_i is how many pixels class i has; classes without any are left out.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    truth, found = counts.sum(-1), counts.sum(-2)
    present = truth > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = np.where(present, right / truth, 0.0).sum(-1) / present.sum(-1)
        iou = np.where(present, right / (truth + found - right), 0.0).sum(-1) / present.sum(-1)
    return {"pixel_accuracy": right.sum(-1) / truth.sum(-1), "class_accuracy": accuracy, "class_iou": iou}


def scores_with_intervals(counts: Sequence[Tensor]) -> dict[str, Any]:
    """Scores over all images together, from the (K, K) counts of each, with intervals over images."""
    each: NDArray[np.float64] = torch.stack(list(counts)).numpy()
    whole = class_scores(each.sum(0))

    def interval(name: str) -> list[float]:
        def statistic(weights: Floats) -> Floats:
            return class_scores(np.tensordot(weights, each, axes=1))[name]

        return list(confidence_interval(statistic, len(each)))

    return {name: {"value": float(whole[name]), "ci95": interval(name)} for name in SCORES}
