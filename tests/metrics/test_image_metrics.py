"""Image metrics against closed forms and independent implementations."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.metrics import METRICS, ImageMetrics, image_values, unusable
from pix2pix_hub.metrics.networks import MetricNetworks


def similarity(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SSIM and its contrast-structure term of Wang et al. 2004 on (C, H, W) in [0, 1]: Gaussian window of sigma 1.5,
    11x11, borders mirrored."""

    def smooth(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, sigma=(0, 1.5, 1.5), truncate=3.5, mode="mirror")

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    contrast = (2 * covariance + c2) / (var_a + var_b + c2)
    return (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * contrast, contrast


def reference_ssim(a: np.ndarray, b: np.ndarray) -> float:
    return float(similarity(a, b)[0].mean())


def reference_ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2003, eq. 7: contrast of all scales (windows that lie inside), luminance of the coarsest."""
    result, exponents = 1.0, (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    for scale, exponent in enumerate(exponents):
        ssim, contrast = similarity(a, b)
        term = ssim.mean() if scale == 4 else contrast[:, 5:-5, 5:-5].mean()
        result *= max(0.0, float(term)) ** exponent
        if scale < 4:
            a, b = (x.reshape(3, x.shape[1] // 2, 2, x.shape[2] // 2, 2).mean(axis=(2, 4)) for x in (a, b))
    return result


def images(seed: int, count: int = 5, size: tuple[int, int] = (32, 40)) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def measured(generated: torch.Tensor, target: torch.Tensor, batch: int) -> dict[str, float]:
    metrics = ImageMetrics()
    for start in range(0, len(generated), batch):
        metrics.update(generated[start : start + batch], target[start : start + batch])
    return metrics.compute()


def test_values_agree_with_independent_formulas() -> None:
    generated, target = images(0), images(1)
    a, b = ((image.numpy().astype(np.float64) + 1) / 2 for image in (generated, target))
    result = image_values(["l1", "psnr", "ssim"], generated, target)
    np.testing.assert_allclose(result["l1"], np.abs(a - b).mean(axis=(1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(result["psnr"], -10 * np.log10(((a - b) ** 2).mean(axis=(1, 2, 3))), rtol=1e-5)
    np.testing.assert_allclose(result["ssim"], [reference_ssim(x, y) for x, y in zip(a, b, strict=True)], atol=1e-5)
    assert measured(generated, target, batch=5) == {name: pytest.approx(float(result[name].mean())) for name in result}


def test_ms_ssim_agrees_with_an_independent_formula() -> None:
    target = images(0, 2, (192, 176))
    generated = (target + 0.3 * images(1, 2, (192, 176))).clamp(-1, 1)
    expected = [
        reference_ms_ssim(*((image.double().numpy() + 1) / 2 for image in pair))
        for pair in zip(generated, target, strict=True)
    ]
    values = image_values(["ms_ssim"], generated, target)["ms_ssim"]
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert 0.5 < expected[0] < 0.99


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
    assert measured(images(3), images(4), batch) == pytest.approx(measured(images(3), images(4), 5), rel=1e-6)


def test_a_metric_of_whole_sets_takes_a_network_that_is_handed_to_it() -> None:
    def two_features(images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        return images.float().mean(dim=(2, 3))[:, :2] / 255

    black_and_white = torch.tensor([-1.0, -1.0, 1.0, 1.0]).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    metrics = ImageMetrics(["fid", "l1"], MetricNetworks(features=two_features))
    for image in black_and_white:
        metrics.update(torch.zeros(1, 1, 8, 8), image[None])
    result = metrics.compute()
    # real: mean 0.5, variance 1/3 in both (equal) features; generated: mean 128/255, none
    assert list(result) == ["fid", "l1"]
    assert result["fid"] == pytest.approx(2 * (128 / 255 - 0.5) ** 2 + 2 / 3)
    assert result["l1"] == pytest.approx(0.5)


def test_what_a_metric_cannot_look_at_is_said() -> None:
    rgb, six = PixelFormat(), PixelFormat("channels", 6)
    assert all(unusable(name, rgb, (256, 256)) is None for name in METRICS)
    assert "128x256" in str(unusable("ms_ssim", rgb, (128, 256)))
    assert "6-channel" in str(unusable("fid", six, (256, 256)))
    assert "3 classes" in str(unusable("lpips", PixelFormat("labels", 3, classes=(0, 1, 2)), (256, 256)))
    assert unusable("ssim", six, (32, 32)) is None


def test_the_smallest_sizes_work() -> None:
    for name in ("l1", "psnr", "ssim", "ms_ssim"):
        size = METRICS[name].least_size
        value = image_values([name], images(0, 1, (size, size)), images(1, 1, (size, size)))[name]
        assert torch.isfinite(value).all()
