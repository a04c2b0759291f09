"""Images against their targets, through torchmetrics: a value for each image, or means over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from pix2pix_hub.image.format import from_model_range, to_unit_range
from pix2pix_hub.metrics.distributions import frechet_distance, kernel_distance
from pix2pix_hub.metrics.networks import MetricNetworks
from pix2pix_hub.metrics.registry import METRICS

DEFAULT_METRICS = ("l1", "psnr", "ssim")


def image_values(
    names: Sequence[str], generated: Tensor, target: Tensor, networks: MetricNetworks | None = None
) -> dict[str, Tensor]:
    """The value of every image, by each of `names` that has one.

    Args:
        names: of `METRICS`; those of whole sets (FID, KID) are passed over.
        generated: (N, C, H, W) in [-1, 1].
        target: as `generated`.
        networks: holds the one that LPIPS needs.

    Returns:
        float64 (N,) each, on the CPU. What else is in a batch changes them by no more than rounding.
    """
    generated, target = generated.float(), target.float()
    unit = (to_unit_range(generated), to_unit_range(target))
    values = {}
    for name in names:
        if METRICS[name].per_image:
            one = _lpips(generated, target, networks) if name == "lpips" else _VALUES_OF[name](*unit)
            values[name] = one.double().cpu()
    return values


def _l1(generated: Tensor, target: Tensor) -> Tensor:
    return (generated - target).abs().double().mean(dim=(1, 2, 3))


def _psnr(generated: Tensor, target: Tensor) -> Tensor:
    return peak_signal_noise_ratio(generated, target, data_range=1.0, reduction="none", dim=(1, 2, 3))


def _ssim(generated: Tensor, target: Tensor) -> Tensor:
    value = structural_similarity_index_measure(generated, target, data_range=1.0, reduction="none")
    assert isinstance(value, Tensor)
    return value


def _ms_ssim(generated: Tensor, target: Tensor) -> Tensor:
    return multiscale_structural_similarity_index_measure(generated, target, data_range=1.0, reduction="none")


def _lpips(generated: Tensor, target: Tensor, networks: MetricNetworks | None) -> Tensor:
    assert networks is not None and networks.lpips is not None, "LPIPS without its network"
    return networks.lpips(*(image.expand(-1, 3, -1, -1) for image in (generated, target))).flatten()


_VALUES_OF = {"l1": _l1, "psnr": _psnr, "ssim": _ssim, "ms_ssim": _ms_ssim}


def image_features(images: Tensor, networks: MetricNetworks) -> Tensor:
    """What FID and KID compare: (N, 1 or 3, H, W) in [-1, 1], rounded to 8 bits → float64 (N, features), on the CPU."""
    assert networks.features is not None, "features without their network"
    return networks.features(from_model_range(images).expand(-1, 3, -1, -1)).double().cpu()


class ImageMetrics:
    """Means over all images of some metrics, fed batch by batch.

    Batches are expected to be gathered from all processes already. A mean does not depend on the order of the images.

    Args:
        names: of `METRICS`.
        networks: those that `names` need.
    """

    def __init__(self, names: Sequence[str] = DEFAULT_METRICS, networks: MetricNetworks | None = None) -> None:
        self._names, self._networks = names, networks
        self._values: dict[str, list[float]] = {name: [] for name in names if METRICS[name].per_image}
        self._features: dict[str, list[Tensor]] = {"generated": [], "target": []}

    def update(self, generated: Tensor, target: Tensor) -> None:
        """Add a batch: two (N, C, H, W) tensors in [-1, 1]."""
        for name, values in image_values(self._names, generated, target, self._networks).items():
            self._values[name] += values.tolist()
        if not all(METRICS[name].per_image for name in self._names):
            assert self._networks is not None
            for side, images in (("generated", generated), ("target", target)):
                self._features[side].append(image_features(images, self._networks))

    def compute(self) -> dict[str, float]:
        """`{"l1": …, …}` over all batches since construction, in the order of the names."""
        results = {name: mean(values) for name, values in self._values.items()}
        if self._features["target"]:
            real, generated = (torch.cat(self._features[side]) for side in ("target", "generated"))
            results |= distances(self._names, real, generated)
        return {name: results[name] for name in self._names}


def mean(values: Sequence[float]) -> float:
    """Rounded once, so that no order of the values changes a digit."""
    return math.fsum(values) / len(values)


def distances(names: Sequence[str], real: Tensor, generated: Tensor) -> dict[str, float]:
    """Those of `names` that compare the features of whole sets, float64 (N, features) each, N from 2."""
    measures = {"fid": frechet_distance, "kid": kernel_distance}
    return {name: measures[name](real, generated) for name in names if name in measures}
