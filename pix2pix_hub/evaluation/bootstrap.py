"""Confidence intervals by bootstrap over images: how far a number would move had other images been drawn.

A resample is told by how often it counts each image, so that one set of seeded resamples serves every statistic: means,
ratios of sums, distances of distributions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # (R, images) counts → (R,) values

RESAMPLES = 1000
LEVEL = 0.95
_COUNTS_AT_ONCE = 10_000_000  # numbers held


def confidence_interval(
    statistic: Statistic, images: int, *, resamples: int = RESAMPLES, seed: int = 0, center: float | None = None
) -> tuple[float, float]:
    """The central 95 % of a statistic over resamples of the images (Efron 1979).

    Args:
        statistic: from how often each resample counts each image to its value.
        images: how many there are, from 2.
        resamples: how many are drawn.
        seed: of the draws.
        center: the value of the images as they are, for statistics that resampling itself shifts: FID grows where
            images repeat. The interval is then moved by as much as the resamples' median differs from it.
    """
    random = np.random.default_rng(seed)
    at_once = max(1, _COUNTS_AT_ONCE // images)
    chunks = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    shares = np.full(images, 1.0 / images)
    values = np.concatenate([statistic(random.multinomial(images, shares, rows).astype(np.float64)) for rows in chunks])
    low, middle, high = np.quantile(values, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    shift = 0.0 if center is None else center - middle
    return float(low + shift), float(high + shift)


def mean_of(values: Floats) -> Statistic:
    """The mean over images of (images,)."""
    return lambda counts: counts @ values / counts.sum(1)


def ratio_of(numerator: Floats, denominator: Floats) -> Statistic:
    """The sum over images of one (images,) divided by that of another."""
    return lambda counts: (counts @ numerator) / (counts @ denominator)
