"""Confidence intervals against theory and SciPy's bootstrap."""

import numpy as np
import pytest
from scipy import stats

from pix2pix_hub.evaluation import bootstrap
from pix2pix_hub.evaluation.bootstrap import confidence_interval, mean_of, ratio_of


def values(count: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 1.0, count)


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    x = values()
    low, high = confidence_interval(mean_of(x), len(x), resamples=4000)
    error = x.std(ddof=1) / np.sqrt(len(x))
    assert (low, high) == pytest.approx((x.mean() - 1.96 * error, x.mean() + 1.96 * error), abs=0.1 * error)


def test_it_agrees_with_scipy() -> None:
    x, y = values(60, 1), values(60, 2) + 1
    ours = confidence_interval(ratio_of(x, y), 60, resamples=4000)
    theirs = stats.bootstrap(
        (x, y), lambda a, b: a.mean() / b.mean(), paired=True, vectorized=False, n_resamples=4000, method="percentile"
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.1 * (theirs.high - theirs.low))


def test_it_holds_the_true_mean_as_often_as_it_says() -> None:
    hits = 0
    for trial in range(300):
        x = np.random.default_rng(trial).normal(size=50)
        low, high = confidence_interval(mean_of(x), 50, resamples=300, seed=trial)
        hits += low <= 0 <= high
    assert 0.90 < hits / 300 < 0.98


def test_the_same_seed_gives_the_same_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    x = values(50)
    whole = confidence_interval(mean_of(x), 50)
    assert confidence_interval(mean_of(x), 50) == whole
    assert confidence_interval(mean_of(x), 50, seed=1) != whole
    monkeypatch.setattr(bootstrap, "_COUNTS_AT_ONCE", 7 * 50)
    assert confidence_interval(mean_of(x), 50) == pytest.approx(whole, rel=1e-12)


def test_an_interval_that_resampling_shifts_is_moved_back() -> None:
    x = values(50)
    shifted = lambda counts: mean_of(x)(counts) + 3  # noqa: E731
    moved = confidence_interval(shifted, 50, center=float(np.median(x)))
    plain = confidence_interval(mean_of(x), 50)
    assert moved[1] - moved[0] == pytest.approx(plain[1] - plain[0])
    assert moved[0] < np.median(x) < moved[1]
