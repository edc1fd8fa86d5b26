"""How much of one set of features lies in the manifold of another (Kynkaanniemi et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .statistics import check_features

_ROWS = 1024  # rows of the distance matrix held at once


@dataclass(frozen=True)
class PrecisionRecall:
    """Fidelity and diversity, each in [0, 1].

    Attributes:
        precision: Share of generated images within the manifold of the real ones.
        recall: Share of real images within the manifold of the generated ones.
    """

    precision: float
    recall: float


def precision_recall(real: Any, generated: Any, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall: the manifold is a ball around each image, out to its k-th nearest neighbour.

    Both fall with the number of images, so compare only at equal sizes. Float64.

    Args:
        real: (n, d) features, n > k.
        generated: (m, d) features of the same encoder, m > k.
        k: Which neighbour within the same set (itself not counted) gives the radius.

    Raises:
        ValueError: if the features are unfit (see `check_features`), of different width, or too few for `k`.
    """
    x, y = check_features(real, "the real features"), check_features(generated, "the generated features")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"both sets need features of the same width, got {x.shape[1]} and {y.shape[1]}")
    if not 1 <= k < min(len(x), len(y)):
        raise ValueError(f"k must lie in [1, {min(len(x), len(y)) - 1}] for {len(x)} and {len(y)} pictures, got {k}")

    centre = x.mean(axis=0)  # |x|^2 + |y|^2 - 2 x.y loses fewer digits near the origin
    x, y = x - centre, y - centre
    return PrecisionRecall(precision=_covered(y, x, _radii(x, k)), recall=_covered(x, y, _radii(y, k)))


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    distances = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * (a @ b.T)
    return np.maximum(distances, 0.0)


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """(n,) squared distance of each point from its k-th neighbour in its own set."""
    radii = np.empty(len(x))
    for start in range(0, len(x), _ROWS):
        distances = _squared_distances(x[start : start + _ROWS], x)
        np.fill_diagonal(distances[:, start:], np.inf)  # a point is not its own neighbour
        radii[start : start + _ROWS] = np.partition(distances, k - 1, axis=1)[:, k - 1]

    return radii


def _covered(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> float:
    """Share of points that lie in at least one ball."""
    inside = [
        (_squared_distances(points[start : start + _ROWS], centres) <= radii).any(axis=1)
        for start in range(0, len(points), _ROWS)
    ]
    return float(np.concatenate(inside).mean())
