"""The network behind the segmentation score: trained once on a set's real photos and their label maps, then kept.

It is this package's own U-Net with as many outputs as there are classes. What its `tanh` gives, times a constant, are
the logits of a cross entropy: bounded, and far enough apart for any certainty.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from pix2pix_hub.data.pair_dataset import PairDataset
from pix2pix_hub.data.transforms import EpochSampler, PairTensors, PairTransform
from pix2pix_hub.errors import UserError
from pix2pix_hub.evaluation.segmentation import ClassMap
from pix2pix_hub.export import WEIGHTS_NAME
from pix2pix_hub.files import write_folder_aside
from pix2pix_hub.models import UNetGenerator

logger = logging.getLogger(__name__)

LOGIT_SCALE = 10.0
MOST_DOWNS = 6


@dataclass(frozen=True)
class SegmenterOptions:
    """How the network is trained; part of what it is kept under."""

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
        formats = {"source": self.pairs.formats[self.photo_side], "target": self.classes.to_format()}
        return PairTransform(image_size, augment=augment, resize=resize, formats=formats, seed=seed)


class Segmenter:
    """Photos → classes."""

    def __init__(self, network: UNetGenerator) -> None:
        self.network = network

    def logits(self, photos: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] → (N, K, H, W)."""
        return LOGIT_SCALE * self.network(photos)

    @torch.inference_mode()
    def __call__(self, photos: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] → int64 (N, H, W) on the CPU."""
        return self.logits(photos).argmax(1).cpu()


def segmenter_for(
    photos: LabelledPhotos,
    image_size: tuple[int, int],
    resize: str,
    fingerprint: str,
    device: torch.device,
    options: SegmenterOptions,
) -> tuple[Segmenter, dict[str, Any]]:
    """The network for these photos at this size: the one kept from before, else a new one, which is kept.

    Where several evaluations want the same one, one trains it and the others wait for it.

    Returns:
        The segmenter, what it was trained on and how, and the hash of its weights: scores compare where that is equal.
    """
    what = {
        "pairs": fingerprint,
        "split": photos.pairs.split,
        "count": len(photos),
        "photo_side": photos.photo_side,
        "formats": {side: replace(stored, palette=()).to_dict() for side, stored in photos.pairs.formats.items()},
        "classes": {"colors": photos.classes.colors, "values": photos.classes.values},
        "image_size": list(image_size),
        "resize": resize,
        **asdict(options),
    }
    folder = cache_folder() / "segmenters" / _key(what)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        network = _kept(folder, device)
        if network is None:
            network = train_segmenter(photos, image_size, resize, device, options)
            with write_folder_aside(folder) as partial:
                network.save_files(partial)
                (partial / "training.json").write_text(json.dumps(what, indent=2) + "\n")
        weights = hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest()
    return Segmenter(network), what | {"weights_sha256": weights}


def _kept(folder: Path, device: torch.device) -> UNetGenerator | None:
    """The network in `folder`, if there is a sound one."""
    try:
        return UNetGenerator.from_pretrained(folder, map_location=str(device)).eval() if folder.is_dir() else None
    except UserError as error:
        logger.warning("%s is damaged and made anew: %s", folder, error)
        return None


def cache_folder() -> Path:
    """`pix2pix_hub/` in the user's folder for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pix2pix_hub"


def _key(what: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def train_segmenter(
    photos: LabelledPhotos,
    image_size: tuple[int, int],
    resize: str,
    device: torch.device,
    options: SegmenterOptions,
) -> UNetGenerator:
    """Train from scratch by cross entropy on flipped and cropped photos; the same seed gives the same network.

    Returns:
        The network in evaluation mode, on `device`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        network = UNetGenerator(
            photos.pairs.formats[photos.photo_side].channels,
            len(photos.classes),
            base_channels=options.base_channels,
            num_downs=_downs(image_size),
            dropout=0.0,
        ).to(device)
    transform = photos.transform(image_size, resize, augment=True, seed=options.seed)
    sampler = EpochSampler(len(photos), seed=options.seed)
    loader = DataLoader(PairTensors(photos, transform), batch_size=options.batch_size, sampler=sampler)
    optimizer = torch.optim.Adam(network.parameters(), options.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, options.steps)
    bar = tqdm(total=options.steps, desc="training the segmenter", unit="step", leave=False, mininterval=1.0)
    segmenter = Segmenter(network.train())
    epoch = 0
    while bar.n < options.steps:
        sampler.set_epoch(epoch)
        for batch, _ in zip(loader, range(options.steps - bar.n), strict=False):
            truth = batch["target"].argmax(1).to(device)
            loss = F.cross_entropy(segmenter.logits(batch["source"].to(device)), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
        epoch += 1
    bar.close()
    return network.eval()


def _downs(image_size: tuple[int, int]) -> int:
    """As many halvings as both sides allow, down to 2x2 or `MOST_DOWNS`."""
    fits = [
        downs
        for downs in range(1, MOST_DOWNS + 1)
        if all(side % 2**downs == 0 and side >= 2 ** (downs + 1) for side in image_size)
    ]
    return max(fits)
