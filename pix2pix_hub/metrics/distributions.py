"""FID and KID of features: how far the distribution of generated images is from that of real ones.

The values come from torchmetrics. The `weighted` forms compute the same for images counted several times or not at
all, fast enough for a bootstrap.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

KID_SUBSET, KID_SUBSETS, KID_SEED = 1000, 100, 0


class _GivenFeatures(nn.Module):
    """Stands where torchmetrics expects a network: the features are computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """|m - m'|² + tr(S + S' - 2 (S S')^½), of means and covariances of float64 (N, features), N from 2
    (Heusel et al. 2017, eq. 6)."""
    metric = FrechetInceptionDistance(_GivenFeatures(real.shape[1]), sync_on_compute=False).set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return float(metric.compute())


def kernel_distance(real: Tensor, generated: Tensor) -> float:
    """Squared maximum mean discrepancy, unbiased, kernel (x·y / features + 1)³ (Bińkowski et al. 2018, section 4).

    Args:
        real, generated: float64 (N, features), N from 2. Above 1000, the mean over 100 seeded subsets of 1000.
    """
    size = min(KID_SUBSET, len(real), len(generated))
    whole = size == max(len(real), len(generated))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save", category=UserWarning)
        metric = KernelInceptionDistance(
            _GivenFeatures(real.shape[1]), subsets=1 if whole else KID_SUBSETS, subset_size=size, sync_on_compute=False
        )
    metric.update(real, real=True)
    metric.update(generated, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(KID_SEED)
        return float(metric.compute()[0])


def weighted_frechet(real: Tensor, generated: Tensor, counts: Tensor) -> Tensor:
    """`frechet_distance` with image i counted `counts[r, i]` times on both sides: (R,) of (R, N).

    With the centred features as rows of A and B, S = AᵀA and S' = BᵀB, the trace of (S S')^½ is the sum of the singular
    values of A Bᵀ: N x N, whatever the number of features.
    """
    return torch.stack([_weighted_frechet(real, generated, row) for row in counts.double()])


def _weighted_frechet(real: Tensor, generated: Tensor, counts: Tensor) -> Tensor:
    present = counts > 0
    weights = counts[present, None]
    means, roots = [], []
    for features in (real[present], generated[present]):
        means.append((weights * features).sum(0) / weights.sum())
        roots.append(weights.sqrt() * (features - means[-1]) / (weights.sum() - 1).sqrt())
    spread = sum(root.square().sum() for root in roots)
    return (means[0] - means[1]).square().sum() + spread - 2 * torch.linalg.svdvals(roots[0] @ roots[1].T).sum()


def weighted_kernel(real: Tensor, generated: Tensor, counts: Tensor) -> Tensor:
    """`kernel_distance` over all images with image i counted `counts[r, i]` times on both sides: (R,) of (R, N).

    An image is never compared with itself or with a copy of itself on its own side.
    """
    counts = counts.double()
    same = counts.square().sum(1)  # pairs of an image and itself, or its copy
    total = counts.sum(1).square()
    within = sum(_pairs(_kernel(side, side).fill_diagonal_(0), counts) for side in (real, generated))
    return within / (total - same) - 2 * _pairs(_kernel(real, generated), counts) / total


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _pairs(kernel: Tensor, counts: Tensor) -> Tensor:
    """For each row of counts the sum of the kernel over all pairs."""
    return ((counts @ kernel) * counts).sum(1)
