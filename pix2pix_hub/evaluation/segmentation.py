"""The paper's task scores (Isola et al. 2017, section 4.1): do generated photos show what the label map asked for?

Its FCN score runs a network that segments photos over the generated ones and compares the result with the labels. Here
that network is trained once on the set's own real photos and kept, so that no published weights are needed; the same
scores of the real photos stand beside it as what can be reached. Generated label maps are scored by their own classes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from pix2pix_hub.data.decode import PairDataset
from pix2pix_hub.data.order import EpochSampler
from pix2pix_hub.data.transforms import PairTensors, PairTransform
from pix2pix_hub.evaluation.options import EvaluationOptions
from pix2pix_hub.export import WEIGHTS_NAME
from pix2pix_hub.image.format import PixelFormat, from_model_range
from pix2pix_hub.image.palette import class_colors, color_sample
from pix2pix_hub.image.read import Decoded
from pix2pix_hub.metrics import Floats, confidence_interval
from pix2pix_hub.models import UNetGenerator
from pix2pix_hub.util import UserError, one_at_a_time, write_folder_aside

logger = logging.getLogger(__name__)

SCORES = ("pixel_accuracy", "class_accuracy", "class_iou")
LOOKED_AT = 40  # label maps in which the class colours are looked for
LOGIT_SCALE = 10.0
MOST_DOWNS = 6

# Generated images and their indices → (N, K, K) class counts for each kind of image
Scorer = Callable[[Tensor, list[int]], dict[str, Tensor]]


# --- classes and scores


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
    colors = class_colors([color_sample(Decoded(image, "rgb"), labels=False) for image in maps])
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
    n_ii ÷ (t_i + Σ_j n_ji - n_ii). t_i is how many pixels class i has; classes without any are skipped.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    truth, found = counts.sum(-1), counts.sum(-2)
    present = truth > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = np.where(present, right / truth, 0.0).sum(-1) / present.sum(-1)
        iou = np.where(present, right / (truth + found - right), 0.0).sum(-1) / present.sum(-1)
    return {"pixel_accuracy": right.sum(-1) / truth.sum(-1), "class_accuracy": accuracy, "class_iou": iou}


def scores_with_intervals(counts: Tensor) -> dict[str, Any]:
    """Scores over all images together, from the counts of each, (N, K, K), with intervals over images."""
    each = counts.numpy()
    whole = class_scores(each.sum(0))

    def interval(name: str) -> list[float]:
        statistic = lambda weights: class_scores(np.tensordot(weights, each, axes=1))[name]  # noqa: E731
        return list(confidence_interval(statistic, len(each)))

    return {name: {"value": float(whole[name]), "ci95": interval(name)} for name in SCORES}


def make_scorer(
    evaluated: PairDataset,
    training: PairDataset | None,
    options: EvaluationOptions,
    fingerprint: str,
    image_size: tuple[int, int],
    resize: str,
    order: Tensor,
    state: PartialState,
) -> tuple[Scorer | None, dict[str, Any] | None]:
    """The counter of classes for `--task`, and facts about it.

    Args:
        fingerprint: of the data set.
        order: a permutation of the evaluated pairs; label maps are compared with those of the next one, too.

    Raises:
        UserError: the set has no label maps where the task wants them, or no training pairs.
    """
    if options.task == "none":
        return None, None
    judged = options.task == "segmentation"
    photo_side, label_side = ("target", "source") if judged else ("source", "target")
    classes = find_classes(training or evaluated, label_side, options.task)
    about: dict[str, Any] = {"task": options.task, "classes": len(classes), "network": None}
    find: Callable[[Tensor], Tensor] = classes.of_generated
    if judged:
        if training is None:
            raise UserError(
                "--task segmentation trains a network on the set's real photos, and this set has no split "
                "for it: name one with --train-split."
            )
        recipe = SegmenterRecipe(image_size, resize, options.segmenter_steps)
        with state.main_process_first():  # which trains; the others find what it kept
            photos = LabelledPhotos(training, photo_side, classes)
            network, about["network"] = segmenter_for(photos, recipe, fingerprint, state.device)
        find = partial(segment, network)
    photos = LabelledPhotos(evaluated, photo_side, classes)
    truths = PairTensors(photos, photos.transform(image_size, resize, augment=False))
    partner = order.roll(-1)[order.argsort()].tolist()

    def score(generated: Tensor, indices: list[int]) -> dict[str, Tensor]:
        """Classes of generated images against their own labels and another pair's; of real photos against theirs."""
        own = [truths[index] for index in indices]
        truth = torch.stack([pair["target"] for pair in own]).argmax(1)
        other = torch.stack([truths[partner[index]]["target"] for index in indices]).argmax(1)
        found = find(generated)
        counts = {
            name: confusion(labels, found, len(classes)) for name, labels in (("generated", truth), ("shuffled", other))
        }
        if judged:
            real = torch.stack([pair["source"] for pair in own]).to(generated.device)
            counts["real"] = confusion(truth, find(real), len(classes))
        return counts

    return score, about


# --- the network that judges


@dataclass(frozen=True)
class SegmenterRecipe:
    """How the network is trained; part of what it is kept under."""

    image_size: tuple[int, int]
    resize: str = "exact"
    steps: int = 1000
    batch_size: int = 4
    base_channels: int = 16
    learning_rate: float = 3e-3  # at its largest: a one-cycle schedule (Smith & Topin 2018)
    seed: int = 0


@dataclass(frozen=True)
class LabelledPhotos:
    """Pairs of a photo and its classes; `pix2pix_hub.data.transforms.Pairs`."""

    pairs: PairDataset
    photo_side: str  # the other one holds the label maps
    classes: ClassMap

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        source, target = self.pairs[index]
        photo, labels = (source, target) if self.photo_side == "source" else (target, source)
        return photo, self.classes.of_stored(labels)

    def transform(self, image_size: tuple[int, int], resize: str, *, augment: bool, seed: int = 0) -> PairTransform:
        """To `{"source": photo, "target": one-hot classes}` at a size; the labels are never interpolated."""
        numbers = tuple(range(len(self.classes)))
        labels = PixelFormat("labels", len(self.classes), classes=numbers, colors=self.classes.colors)
        formats = {"source": self.pairs.formats[self.photo_side], "target": labels}
        return PairTransform(image_size, augment=augment, resize=resize, formats=formats, seed=seed)


def class_logits(network: UNetGenerator, photos: Tensor) -> Tensor:
    """(N, C, H, W) in [-1, 1] → (N, K, H, W), from this package's own U-Net with as many outputs as there are classes.

    What its `tanh` gives, times a constant: bounded, and far enough apart for any certainty.
    """
    return LOGIT_SCALE * network(photos)


@torch.inference_mode()
def segment(network: UNetGenerator, photos: Tensor) -> Tensor:
    """Photos, (N, C, H, W) in [-1, 1] → int64 (N, H, W) of classes, on the CPU."""
    return class_logits(network, photos).argmax(1).cpu()


def segmenter_for(
    photos: LabelledPhotos, recipe: SegmenterRecipe, fingerprint: str, device: torch.device
) -> tuple[UNetGenerator, dict[str, Any]]:
    """The network for these photos: the one kept from before, else a new one, which is kept.

    Where several evaluations want the same one, one trains it and the others wait for it.

    Returns:
        The network, what it was trained on and how, and the hash of its weights: scores compare where that is equal.
    """
    what = {
        "pairs": fingerprint,
        "split": photos.pairs.split,
        "count": len(photos),
        "photo_side": photos.photo_side,
        "formats": {side: replace(stored, palette=()).to_dict() for side, stored in photos.pairs.formats.items()},
        "classes": {"colors": photos.classes.colors, "values": photos.classes.values},
        **asdict(recipe),
    }
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pix2pix_hub"
    folder = cache / "segmenters" / key
    network = None
    with one_at_a_time(folder):
        try:
            if folder.is_dir():
                network = UNetGenerator.from_pretrained(folder, map_location=str(device)).eval()
        except UserError as error:
            logger.warning("%s is damaged and made anew: %s", folder, error)
        if network is None:
            network = train_segmenter(photos, recipe, device)
            with write_folder_aside(folder) as aside:
                network.save_files(aside)
                (aside / "training.json").write_text(json.dumps(what, indent=2) + "\n")
        weights = hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest()
    return network, what | {"weights_sha256": weights}


def train_segmenter(photos: LabelledPhotos, recipe: SegmenterRecipe, device: torch.device) -> UNetGenerator:
    """Train from scratch by cross entropy on flipped and cropped photos; the same seed gives the same network.

    Returns:
        The network in evaluation mode, on `device`.
    """
    # as many halvings as both sides allow, down to 2x2
    downs = max(
        downs
        for downs in range(1, MOST_DOWNS + 1)
        if all(side % 2**downs == 0 and side >= 2 ** (downs + 1) for side in recipe.image_size)
    )
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        network = UNetGenerator(
            photos.pairs.formats[photos.photo_side].channels,
            len(photos.classes),
            base_channels=recipe.base_channels,
            num_downs=downs,
            dropout=0.0,
        ).to(device)
    transform = photos.transform(recipe.image_size, recipe.resize, augment=True, seed=recipe.seed)
    sampler = EpochSampler(len(photos), seed=recipe.seed)
    loader = DataLoader(PairTensors(photos, transform), batch_size=recipe.batch_size, sampler=sampler)
    optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, recipe.steps)
    bar = tqdm(total=recipe.steps, desc="training the segmenter", unit="step", leave=False, mininterval=1.0)
    network.train()
    epoch = 0
    while bar.n < recipe.steps:
        sampler.set_epoch(epoch)
        for batch, _ in zip(loader, range(recipe.steps - bar.n), strict=False):
            truth = batch["target"].argmax(1).to(device)
            loss = F.cross_entropy(class_logits(network, batch["source"].to(device)), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
        epoch += 1
    bar.close()
    return network.eval()
