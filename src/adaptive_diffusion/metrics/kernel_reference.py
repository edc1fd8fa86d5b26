"""The kernel distance to a reference, from the moments of its features.

The kernel (x . y / d + 1)^3 is a polynomial, so its mean over all reference images y depends on the first three moments
of y alone. The moments replace the features: the result is exact, and no features of single images are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any, ClassVar

import numpy as np

from .kid import KernelDistance, choose_subsets, kernel_sums, subset_size_for
from .reference_file import ReferenceFile
from .statistics import check_features

_ROWS = 256  # feature vectors per block, which bounds the memory of their products


@dataclass(frozen=True, eq=False)
class KernelReference(ReferenceFile):
    """Raw moments of the features y of a reference.

    Attributes:
        n: Number of images, at least 2.
        first: (d,) float64, mean of y.
        second: (d, d) float64, mean of y_i y_j.
        third: (d (d + 1) (d + 2) / 6,) float64, mean of y_i y_j y_k for i <= j <= k.
        within: Mean kernel of two different images of the reference.
        encoder: Name of the encoder.
        encoder_hash: Content hash of the encoder.

    Raises:
        ValueError: if the shapes do not fit each other, or a moment is not finite.
    """

    FORMAT: ClassVar[str] = "adaptive-diffusion/kernel-reference/1"
    WHAT: ClassVar[str] = "the moments of a reference"

    n: int
    first: np.ndarray
    second: np.ndarray
    third: np.ndarray
    within: float
    encoder: str
    encoder_hash: str

    def __post_init__(self) -> None:
        d = len(self.first)
        shapes = (self.second.shape, self.third.shape)
        if self.first.ndim != 1 or self.n < 2 or shapes != ((d, d), (d * (d + 1) * (d + 2) // 6,)):
            raise ValueError(f"moments of {d} dimensions and n >= 2 do not have the shapes {shapes} and n = {self.n}")
        if not all(np.isfinite(moment).all() for moment in (self.first, self.second, self.third, self.within)):
            raise ValueError("moments must be finite, got NaN or infinity; compute them again")

    @classmethod
    def from_features(cls, features: Any, encoder: str, encoder_hash: str) -> KernelReference:
        """Compute the moments of (n, d) features, n >= 2.

        Raises:
            ValueError: see `check_features`.
        """
        y = check_features(features)
        n, d = y.shape
        i, j, k = _triples(d)

        third = np.zeros(len(i))
        for start in range(0, n, _ROWS):
            rows = y[start : start + _ROWS]
            third += (rows[:, i] * rows[:, j] * rows[:, k]).sum(axis=0)

        everything = np.ones((n, 1))
        within = kernel_sums(y, y, everything, everything, diagonal=False)[0] / (n * (n - 1))
        return cls(n, y.mean(axis=0), y.T @ y / n, third / n, float(within), encoder, encoder_hash)

    def distance(
        self, features: Any, *, subsets: int = 100, subset_size: int | None = None, seed: int = 0
    ) -> KernelDistance:
        """Kernel distance to the whole reference, averaged over random subsets of the features (see `kid`).

        Args:
            features: (n, d) features of the same encoder.
            subsets: Number of random subsets.
            subset_size: Images in a subset, in [2, n]; default: 1000, or half of n if that is less.
            seed: Seed of the subsets.

        Raises:
            ValueError: for unfit features, features of another width, or a subset size out of range.
        """
        x = check_features(features, width=len(self.first))
        size = subset_size_for(len(x), subsets, subset_size)
        chosen = choose_subsets(np.random.default_rng(seed), len(x), subsets, size)

        own = kernel_sums(x, x, chosen, chosen, diagonal=False) / (size * (size - 1))
        values = own + self.within - 2 * (chosen.T @ self._mean_kernel(x)) / size

        return KernelDistance(float(values.mean()), float(values.std()), subsets, size)

    def _mean_kernel(self, x: np.ndarray) -> np.ndarray:
        """(n,) mean kernel of each x with all images of the reference."""
        d = x.shape[1]

        # The mean over y of (x . y / d + 1)^3, expanded into the moments of y.
        cubic = np.concatenate([self._cubic(x[start : start + _ROWS]) for start in range(0, len(x), _ROWS)])
        return 1 + 3 * (x @ self.first) / d + 3 * ((x @ self.second) * x).sum(axis=1) / d**2 + cubic / d**3

    def _cubic(self, x: np.ndarray) -> np.ndarray:
        """(n,) mean of (x . y)^3 over the reference."""
        n, d = x.shape
        once = (x @ self._third_matrix).reshape(n, d, d)  # one of three factors x is contracted
        return np.einsum("nij,ni,nj->n", once, x, x, optimize=True)

    @cached_property
    def _third_matrix(self) -> np.ndarray:
        """(d, d * d) the third moment with all permutations of i <= j <= k."""
        d = len(self.first)
        full = np.empty((d, d, d))
        i, j, k = _triples(d)
        for a, b, c in ((i, j, k), (i, k, j), (j, i, k), (j, k, i), (k, i, j), (k, j, i)):
            full[a, b, c] = self.third

        return full.reshape(d, d * d)


def _triples(d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All index triples i <= j <= k below d."""
    i, j, k = np.array(list(combinations_with_replacement(range(d), 3))).T
    return i, j, k
