"""How certain a mean over images is, and a distance between sets of images: standard errors and 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

FEWEST = 4  # values of which an interval is given
GROUPS = 10  # of images, of the jackknife
_Z = NormalDist().inv_cdf(0.975)


def standard_error(values: np.ndarray) -> float:
    """Of the mean of (n,) values; infinite for a single one."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf


def mean_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Student's interval of the mean of (n,) values; None for fewer than 4."""
    n = len(values)
    if n < FEWEST:
        return None
    reach = student(n - 1) * standard_error(np.asarray(values))
    mean = float(np.mean(values))
    return mean - reach, mean + reach


def student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, within 1 % from 3 on (Abramowitz & Stegun, 1964, 26.7.5)."""
    z, n = _Z, degrees
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3


def jackknife_interval(
    distance: Callable[[np.ndarray], float], features: np.ndarray, value: float
) -> tuple[float, float]:
    """Interval of a distance of a set of images, by leaving out one group of images after another (Tukey, 1958).

    Args:
        distance: (m, d) features -> the distance of these images.
        features: (n, d) features of all images, n >= 20.
        value: The distance of all images.
    """
    group = np.arange(len(features)) % GROUPS
    left = np.array([distance(features[group != g]) for g in range(GROUPS)])
    error = float(np.sqrt((GROUPS - 1) * np.mean((left - left.mean()) ** 2)))
    return value - _Z * error, value + _Z * error
