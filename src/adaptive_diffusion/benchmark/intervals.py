"""Paired bootstrap intervals (Efron & Tibshirani, 1993, chapter 13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean difference and its confidence interval.

    Attributes:
        mean: Mean of a - b.
        low: Lower end.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def paired_bootstrap(a: Any, b: Any, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Percentile interval of the mean difference a - b, by drawing pairs with replacement.

    Args:
        a: (n,) a number for each image.
        b: (n,) the same for another sampling method, from the same noises in the same order.
        level: Coverage, in (0, 1).
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling.

    Raises:
        ValueError: for arrays of different or zero length.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise ValueError(f"pairs need two lists of the same length, at least 1, got shapes {x.shape} and {y.shape}")

    difference = x - y
    # a resample draws images, not values: both methods keep the same noises
    rows = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    low, high = np.quantile(difference[rows].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(difference.mean()), float(low), float(high))
