"""FID and KID against closed forms and independent implementations."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from pix2pix_hub.metrics import distributions
from pix2pix_hub.metrics.distributions import frechet_distance, kernel_distance, weighted_frechet, weighted_kernel


def gaussian(mean: list[float], deviations: list[float], seed: int, count: int = 60) -> torch.Tensor:
    """Features whose sample mean and (diagonal) covariance are exactly these."""
    random = np.random.default_rng(seed)
    raw = random.standard_normal((count, len(mean)))
    white, _ = np.linalg.qr(raw - raw.mean(0))  # orthonormal columns that sum to 0
    return torch.from_numpy(white * np.sqrt(count - 1) * deviations + mean)


def correlated(seed: int, count: int, features: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=random, dtype=torch.float64)
    return torch.randn(count, features, generator=random, dtype=torch.float64) @ mixing


def test_fid_of_two_gaussians_is_the_known_one() -> None:
    real = gaussian([0.0, 1.0, 2.0], [1.0, 2.0, 0.5], 0)
    generated = gaussian([1.0, 1.0, 4.0], [3.0, 2.0, 1.0], 1)
    # |m - m'|² + Σ (s - s')², where the covariances commute
    assert frechet_distance(real, generated) == pytest.approx((1 + 0 + 4) + (4 + 0 + 0.25), rel=1e-9)


def test_fid_agrees_with_scipy() -> None:
    real, generated = correlated(0, 40, 6), correlated(1, 50, 6)
    covariances = [np.cov(features.numpy(), rowvar=False) for features in (real, generated)]
    expected = np.square(real.numpy().mean(0) - generated.numpy().mean(0)).sum()
    expected += np.trace(covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real)
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-6)


def kid_by_loops(real: torch.Tensor, generated: torch.Tensor) -> float:
    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    def within(features: torch.Tensor) -> float:
        pairs = [(i, j) for i in range(len(features)) for j in range(len(features)) if i != j]
        return sum(kernel(features[i], features[j]) for i, j in pairs) / len(pairs)

    between = np.mean([kernel(a, b) for a in real for b in generated])
    return within(real) + within(generated) - 2 * float(between)


def test_kid_agrees_with_its_definition() -> None:
    real, generated = correlated(0, 9, 4), correlated(1, 9, 4)
    assert kernel_distance(real, generated) == pytest.approx(kid_by_loops(real, generated), rel=1e-9)


def test_kid_of_large_sets_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "KID_SUBSET", 20)
    real, generated = correlated(0, 60, 4), correlated(1, 60, 4)
    torch.manual_seed(1)
    first = kernel_distance(real, generated)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert kernel_distance(real, generated) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert first == pytest.approx(kid_by_loops(real, generated), rel=0.2)


@pytest.mark.parametrize(("features", "count"), [(5, 30), (40, 12)])
def test_counting_every_image_once_gives_the_plain_values(features: int, count: int) -> None:
    real, generated = correlated(0, count, features), correlated(1, count, features)
    once = torch.ones(1, count)
    assert float(weighted_frechet(real, generated, once)) == pytest.approx(frechet_distance(real, generated), rel=1e-6)
    assert float(weighted_kernel(real, generated, once)) == pytest.approx(kernel_distance(real, generated), rel=1e-9)


def test_counts_are_copies() -> None:
    real, generated = correlated(0, 8, 3), correlated(1, 8, 3)
    counts = torch.tensor([[2, 0, 1, 1, 3, 0, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1]])
    rows = torch.arange(8).repeat_interleave(counts[0])
    copied = frechet_distance(real[rows], generated[rows])
    assert weighted_frechet(real, generated, counts)[0] == pytest.approx(copied, rel=1e-6)
    different = [(i, j) for i in rows for j in rows if i != j]
    kernel = lambda a, b: (float(a @ b) / 3 + 1) ** 3  # noqa: E731
    expected = sum(np.mean([kernel(side[i], side[j]) for i, j in different]) for side in (real, generated))
    expected -= 2 * np.mean([kernel(real[i], generated[j]) for i in rows for j in rows])
    assert weighted_kernel(real, generated, counts)[0] == pytest.approx(expected, rel=1e-9)
