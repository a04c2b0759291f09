"""What the exported generator makes of the validation pairs: numbers, and pictures for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.data.cache import RunCache
from pix2pix_hub.data.pairs import PairSplits
from pix2pix_hub.data.transforms import PairTensors
from pix2pix_hub.image.format import PixelFormat, save_grid
from pix2pix_hub.metrics import METRICS, ImageMetrics, MetricNetworks, load_networks, unusable
from pix2pix_hub.training.loaders import evaluation_transform, make_validation_loader
from pix2pix_hub.training.setup import Learner
from pix2pix_hub.util import UserError

TRAINING_PAIRS = 20  # evenly spread, whose L1 stands beside that of the validation pairs
TRAIN_L1 = "train_l1"  # key of that in what is measured


@dataclass(frozen=True)
class Validation:
    """The validation pairs, seen through `learner`."""

    accelerator: Accelerator
    learner: Learner
    loader: Any  # this process's share of `pairs`
    pairs: PairTensors
    formats: Mapping[str, PixelFormat]  # "source", "target"
    sample_count: int  # pairs in a sample grid
    names: tuple[str, ...]  # of the metrics
    networks: MetricNetworks  # that they need
    training_loader: Any  # this process's share of some training pairs; None where they come as a stream

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Both losses and the metrics, over all processes; and L1 of some training pairs, where L1 is measured."""
        learner, accelerator = self.learner, self.accelerator
        generator, discriminator = learner.exported_generator.eval(), learner.discriminator.eval()
        metrics = ImageMetrics(self.names, self.networks)
        sums = torch.zeros(3, device=accelerator.device)  # d_loss, g_loss, batches
        for batch in self.loader:
            source, target = batch["source"], batch["target"]
            with accelerator.autocast():
                generated = generator.forward(source).float()  # a call would compile it for evaluation, too
                real_logits, fake_logits = (
                    discriminator.forward(torch.cat([source, image], dim=1)) for image in (target, generated)
                )
            d_loss = learner.loss.discriminator_loss(real_logits, fake_logits)
            g_loss = learner.loss.generator_loss(fake_logits, generated, target)["total"]
            sums += torch.stack([d_loss, g_loss, torch.ones_like(d_loss)])
            metrics.update(*accelerator.gather_for_metrics((generated, target)))
        d_sum, g_sum, batches = accelerator.reduce(sums).tolist()
        return {"d_loss": d_sum / batches, "g_loss": g_sum / batches, **metrics.compute(), **self._measure_training()}

    def _measure_training(self) -> dict[str, float]:
        """L1 of the training pairs as the validation pairs' is taken: no augmentation, no dropout."""
        if self.training_loader is None:
            return {}
        metrics = ImageMetrics(("l1",))
        for batch in self.training_loader:
            with self.accelerator.autocast():
                generated = self.learner.exported_generator.forward(batch["source"]).float()
            metrics.update(*self.accelerator.gather_for_metrics((generated, batch["target"])))
        return {TRAIN_L1: metrics.compute()["l1"]}

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
                generated = generator.forward(source[None])[0].float()
            rows.append((source, generated, target))
        return rows


def make_validation(
    accelerator: Accelerator,
    config: TrainingConfig,
    pairs: PairSplits,
    learner: Learner,
    cache: RunCache | None = None,
) -> Validation:
    """The validation of a run, shared out to its processes.

    Raises:
        UserError: a metric cannot look at these images, or its network's weights cannot be had.
    """
    transform = evaluation_transform(config, pairs.formats)
    seen = PairTensors(pairs.validation, transform)
    networks = _networks(accelerator, config, pairs)
    training_loader = None
    if pairs.lengths is None and "l1" in config.eval_metrics:
        step = -(-len(pairs.train) // TRAINING_PAIRS)
        some = replace(pairs.train, indices=pairs.train.indices[::step])
        training_loader = make_validation_loader(accelerator, config, PairTensors(some, transform), cache)
    return Validation(
        accelerator,
        learner,
        make_validation_loader(accelerator, config, seen, cache),
        seen,
        pairs.formats,
        config.sample_count,
        config.eval_metrics,
        networks,
        training_loader,
    )


def _networks(accelerator: Accelerator, config: TrainingConfig, pairs: PairSplits) -> MetricNetworks:
    """What `--eval-metrics` needs, before anything is trained."""
    for name in config.eval_metrics:
        reason = unusable(name, pairs.formats["target"], config.image_height_width)
        if reason is None and not METRICS[name].per_image and len(pairs.validation) < 2:
            reason = "there is one validation pair only"
        if reason is not None:
            raise UserError(f"--eval-metrics {name}: {reason}. Leave it out.")
    with accelerator.main_process_first():  # which downloads
        networks, missing = load_networks(config.eval_metrics, accelerator.device)
    for missing_name, why in missing.items():
        raise UserError(f"--eval-metrics {missing_name}: {why}; or leave it out.")
    return networks
