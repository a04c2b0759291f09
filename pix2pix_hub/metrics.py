"""Image metrics, through torchmetrics, with the data range fixed to [0, 1]."""

from __future__ import annotations

from torch import Tensor
from torchmetrics import MeanMetric, Metric
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from pix2pix_hub.images import to_unit_range

IMAGE_METRICS = ("l1", "psnr", "ssim")
HIGHER_IS_BETTER = {"l1": False, "psnr": True, "ssim": True}


class ImageMetrics:
    """L1, PSNR (dB) and SSIM of images in [0, 1], each the mean over images.

    PSNR is averaged image by image; SSIM is that of Wang et al. 2004 (11x11 Gaussian window, sigma
    1.5, borders mirrored and counted). Batches
    are expected to be gathered from all processes already.
    """

    def __init__(self) -> None:
        self._l1 = MeanMetric(sync_on_compute=False)
        self._metrics: dict[str, Metric] = {
            "psnr": PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3), sync_on_compute=False),
            "ssim": StructuralSimilarityIndexMeasure(data_range=1.0, sync_on_compute=False),
        }

    def update(self, generated: Tensor, target: Tensor) -> None:
        """Add a batch: two (N, C, H, W) tensors in [-1, 1], H and W from 11."""
        generated, target = to_unit_range(generated.float()), to_unit_range(target.float())
        self._l1.to(generated.device).update((generated - target).abs().mean(dim=(1, 2, 3)))
        for metric in self._metrics.values():
            metric.to(generated.device).update(generated, target)

    def compute(self) -> dict[str, float]:
        """`{"l1": …, "psnr": …, "ssim": …}` over all batches since construction."""
        return {"l1": float(self._l1.compute())} | {
            name: float(metric.compute()) for name, metric in self._metrics.items()
        }
