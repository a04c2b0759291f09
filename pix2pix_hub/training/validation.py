"""What the exported generator makes of the validation pairs: numbers, and pictures for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.data.pairs import PairSplits
from pix2pix_hub.data.stream_source import StreamedPairs
from pix2pix_hub.data.transforms import PairTensors
from pix2pix_hub.images import PixelFormat, save_grid
from pix2pix_hub.metrics import ImageMetrics
from pix2pix_hub.training.loaders import evaluation_transform, make_validation_loader
from pix2pix_hub.training.setup import Learner


@dataclass(frozen=True)
class Validation:
    """The validation pairs, seen through `learner`."""

    accelerator: Accelerator
    learner: Learner
    loader: Any  # this process's share of `pairs`
    pairs: PairTensors
    formats: Mapping[str, PixelFormat]  # "source", "target"
    sample_count: int  # pairs in a sample grid

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Both losses and the image metrics, over all processes."""
        learner, accelerator = self.learner, self.accelerator
        generator, discriminator = learner.exported_generator.eval(), learner.discriminator.eval()
        metrics = ImageMetrics()
        sums = torch.zeros(3, device=accelerator.device)  # d_loss, g_loss, batches
        for batch in self.loader:
            source, target = batch["source"], batch["target"]
            with accelerator.autocast():
                generated = generator(source).float()
                real_logits, fake_logits = (
                    discriminator(torch.cat([source, image], dim=1)) for image in (target, generated)
                )
            d_loss = learner.loss.discriminator_loss(real_logits, fake_logits)
            g_loss = learner.loss.generator_loss(fake_logits, generated, target)["total"]
            sums += torch.stack([d_loss, g_loss, torch.ones_like(d_loss)])
            metrics.update(*accelerator.gather_for_metrics((generated, target)))
        d_sum, g_sum, batches = accelerator.reduce(sums).tolist()
        return {"d_loss": d_sum / batches, "g_loss": g_sum / batches, **metrics.compute()}

    def save_samples(self, path: Path) -> None:
        """Write a picture of the first pairs: rows of source | generated | target."""
        formats = self.formats
        save_grid(self._sample_rows(), path, [formats["source"], formats["target"], formats["target"]])

    @torch.no_grad()
    def _sample_rows(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        generator = self.learner.exported_generator.eval()
        rows = []
        for index in range(min(self.sample_count, len(self.pairs))):
            pair = self.pairs[index]
            source, target = (pair[side].to(self.accelerator.device) for side in ("source", "target"))
            with self.accelerator.autocast():
                generated = generator(source[None])[0].float()
            rows.append((source, generated, target))
        return rows


def make_validation(
    accelerator: Accelerator, config: TrainingConfig, pairs: PairSplits | StreamedPairs, learner: Learner
) -> Validation:
    """The validation of a run, shared out to its processes."""
    seen = PairTensors(pairs.validation, evaluation_transform(config, pairs.formats))
    loader = make_validation_loader(accelerator, config, seen)
    return Validation(accelerator, learner, loader, seen, pairs.formats, config.sample_count)
