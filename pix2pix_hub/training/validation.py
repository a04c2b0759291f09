"""What the exported generator makes of the validation pairs: numbers, and pictures for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.data.cache import RunCache
from pix2pix_hub.data.pairs import PairSplits
from pix2pix_hub.data.transforms import PairTensors
from pix2pix_hub.image.format import save_grid
from pix2pix_hub.metrics import METRICS, ImageMetrics, MetricNetworks, load_networks, saturated, unusable
from pix2pix_hub.models.base import Generator
from pix2pix_hub.training.loaders import make_transform, make_validation_loader
from pix2pix_hub.training.setup import Learner
from pix2pix_hub.util import UserError

TRAINING_PAIRS = 20  # evenly spread, whose L1 stands beside that of the validation pairs
SATURATED = ("saturated", "saturated_of_real")  # keys of the shares of saturated values in what is measured
TRAIN_L1 = "train_l1"  # key of that in what is measured


class Validation:
    """The validation pairs of a run, shared out to its processes and seen through `learner`.

    Attributes:
        pairs: all of them.
        training_loader: this process's share of some training pairs; None where they come as a stream.

    Raises:
        UserError: a metric cannot look at these images, or its network's weights cannot be had.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: TrainingConfig,
        pairs: PairSplits,
        learner: Learner,
        cache: RunCache | None = None,
    ) -> None:
        self._accelerator, self._config, self._formats, self._learner = accelerator, config, pairs.formats, learner
        self._networks = _metric_networks(accelerator, config, pairs)
        transform = make_transform(config, pairs.formats, augment=False)
        self.pairs = PairTensors(pairs.validation, transform, in_model_range=False)
        self.training_loader = None
        if pairs.lengths is None and "l1" in config.eval_metrics:
            step = -(-len(pairs.train) // TRAINING_PAIRS)
            some = replace(pairs.train, indices=pairs.train.indices[::step])
            shown = PairTensors(some, transform, in_model_range=False)
            self.training_loader = make_validation_loader(accelerator, config, shown, cache)
        self._loader = make_validation_loader(accelerator, config, self.pairs, cache)

    @torch.inference_mode()
    def measure(self) -> dict[str, float]:
        """Both losses, shares of saturated values and metrics, over all processes; L1 of some training pairs, too."""
        accelerator, loss = self._accelerator, self._learner.loss
        generator, discriminator = self._learner.exported_generator, self._learner.discriminator.eval()
        metrics = ImageMetrics(self._config.eval_metrics, self._networks)
        sums = torch.zeros(5, device=accelerator.device)  # both losses, shares of saturated values, pairs
        for batch in self._loader:
            source, target = self._converted(batch)
            generated = self._generate(generator, source)
            with accelerator.autocast():
                (real_logits, real_maps), (fake_logits, fake_maps) = (
                    discriminator.forward(torch.cat([source, image], dim=1), features=True)
                    for image in (target, generated)
                )
            d_loss = loss.discriminator_loss(real_logits, fake_logits)
            g_loss = loss.generator_loss(fake_logits, generated, target, fake_maps, real_maps)["total"]
            shares = saturated(generated).mean(), saturated(target).mean()
            sums += torch.stack([d_loss, g_loss, *shares, torch.ones_like(d_loss)]) * len(source)
            metrics.update(*accelerator.gather_for_metrics((generated, target)))
        *totals, count = accelerator.reduce(sums).tolist()
        names = ("d_loss", "g_loss", *SATURATED)
        measured = {name: total / count for name, total in zip(names, totals, strict=True)} | metrics.compute()
        if self.training_loader is not None:  # as the validation pairs' L1: no augmentation, no dropout
            metrics = ImageMetrics(("l1",))
            for batch in self.training_loader:
                source, target = self._converted(batch)
                generated = self._generate(generator, source)
                metrics.update(*accelerator.gather_for_metrics((generated, target)))
            measured[TRAIN_L1] = metrics.compute()["l1"]
        return measured

    @torch.inference_mode()
    def save_samples(self, path: Path, generator: Generator) -> None:
        """Write a picture of the first pairs: rows of source | generated | target."""
        rows = []
        for index in range(min(self._config.sample_count, len(self.pairs))):
            source, target = self._converted(send_to_device(self.pairs[index], self._accelerator.device))
            rows.append((source, self._generate(generator, source[None])[0], target))
        save_grid(rows, path, [self._formats[side] for side in ("source", "target", "target")])

    def _converted(self, pairs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Source and target in [-1, 1], of one pair or of a batch on the device."""
        converted = self.pairs.transform.to_model_range(pairs)
        return converted["source"], converted["target"]

    def _generate(self, generator: Generator, source: Tensor) -> Tensor:
        with self._accelerator.autocast():  # a call, other than `forward`, would compile it for evaluation, too
            return generator.eval().forward(source).float()


def _metric_networks(accelerator: Accelerator, config: TrainingConfig, pairs: PairSplits) -> MetricNetworks:
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
