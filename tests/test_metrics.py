"""Image metrics against closed forms and an independent SSIM."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from pix2pix_hub.metrics import ImageMetrics


def reference_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004 on (C, H, W) in [0, 1]: Gaussian window of sigma 1.5, 11x11, borders mirrored."""

    def smooth(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, sigma=(0, 1.5, 1.5), truncate=3.5, mode="mirror")

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    ssim /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(ssim.mean())


def images(seed: int, count: int = 5) -> torch.Tensor:
    return torch.rand(count, 3, 32, 40, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def measured(generated: torch.Tensor, target: torch.Tensor, batch: int) -> dict[str, float]:
    metrics = ImageMetrics()
    for start in range(0, len(generated), batch):
        metrics.update(generated[start : start + batch], target[start : start + batch])
    return metrics.compute()


def test_values_agree_with_independent_formulas() -> None:
    generated, target = images(0), images(1)
    a, b = ((image.numpy().astype(np.float64) + 1) / 2 for image in (generated, target))
    result = measured(generated, target, batch=5)
    assert result["l1"] == pytest.approx(np.abs(a - b).mean(), rel=1e-5)
    assert result["psnr"] == pytest.approx(np.mean(-10 * np.log10(((a - b) ** 2).mean(axis=(1, 2, 3)))), rel=1e-5)
    assert result["ssim"] == pytest.approx(np.mean([reference_ssim(x, y) for x, y in zip(a, b, strict=True)]), abs=1e-4)


def test_l1_is_half_the_difference_in_the_networks_range() -> None:
    black, white = -torch.ones(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
    result = measured(black, white, batch=1)
    assert result["l1"] == pytest.approx(1.0)
    assert result["psnr"] == pytest.approx(0.0, abs=1e-5)


def test_equal_images_score_best() -> None:
    result = measured(images(2), images(2), batch=2)
    assert result["l1"] == 0
    assert result["ssim"] == pytest.approx(1.0)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_batches_change_nothing(batch: int) -> None:
    assert measured(images(3), images(4), batch) == pytest.approx(measured(images(3), images(4), 5), rel=1e-5)
