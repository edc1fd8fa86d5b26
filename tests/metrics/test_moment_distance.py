"""The distance of moments is the one from all pairs of features, unbiased, and split among the images."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_diffusion.metrics.moment_distance import MomentDistance
from adaptive_diffusion.metrics.statistics import FeatureStatistics


def features(seed: int, n: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, [1.0, 2.0, 0.5, 3.0, 0.01], (n, 5))


def distance_to(real: np.ndarray) -> MomentDistance:
    return MomentDistance(FeatureStatistics.from_features(real, "made up", "0"))


def whitened(x: np.ndarray, real: np.ndarray) -> np.ndarray:
    """By its definition, with the root of a matrix."""
    covariance = np.cov(real.T)
    shrunk = 0.75 * covariance + 0.25 * np.eye(5) * np.trace(covariance) / 5
    values, vectors = np.linalg.eigh(shrunk)
    return (x - real.mean(axis=0)) @ vectors @ np.diag(values**-0.5) @ vectors.T


def test_contributions_sum_to_the_distance_of_all_pairs_unbiased():
    real, drawn = features(0, 40), features(1, 12, 0.5)
    z, r = whitened(drawn, real), whitened(real, real)
    k = lambda a, b: a @ b.T + (a @ b.T) ** 2 / 10  # noqa: E731
    own = k(z, z)
    expected = (own.sum() - np.trace(own)) / (12 * 11) + k(r, r).mean() - 2 * k(z, r).mean()
    assert distance_to(real).contributions(drawn).mean() == pytest.approx(expected, rel=1e-9)


def test_it_is_the_distance_of_means_and_second_moments():
    real, drawn = features(0, 40), features(1, 4000, 0.3)
    z, r = whitened(drawn, real), whitened(real, real)
    moments = [a.T @ a / len(a) for a in (z, r)]
    exact = (z.mean(axis=0) ** 2).sum() + ((moments[0] - moments[1]) ** 2).sum() / 10
    assert distance_to(real).contributions(drawn).mean() == pytest.approx(exact, rel=0.01)


def test_real_images_are_at_distance_zero_on_average():
    real = features(0, 500)
    rng = np.random.default_rng(1)
    found = [distance_to(real).contributions(real[rng.integers(500, size=20)]).mean() for _ in range(500)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(500)


def test_their_spread_is_the_error_of_the_distance():
    distance = distance_to(features(0, 200))
    found = [distance.contributions(features(seed, 60, 0.5)) for seed in range(1, 301)]
    spread = np.std([one.mean() for one in found])
    stated = np.mean([one.std(ddof=1) for one in found]) / np.sqrt(60)
    assert stated == pytest.approx(spread, rel=0.15)


def test_the_images_that_lie_where_real_ones_do_get_the_credit():
    contributions = distance_to(features(0, 200)).contributions(np.concatenate([features(1, 30), features(2, 30, 1.0)]))
    assert contributions[:30].mean() < contributions[30:].mean()


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="width 5, got 4"):
        distance_to(features(0, 40)).contributions(features(1, 6)[:, :4])
    with pytest.raises(ValueError, match="all alike"):
        distance_to(np.ones((40, 5)))
