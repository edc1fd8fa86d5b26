"""Precision and recall of a set of images, by clusters of the features of real images.

A Frechet distance does not tell bad images from too few kinds of good ones. Precision and recall do (Sajjadi et al.,
2018; Kynkaanniemi et al., 2019). Both papers compare with every real image. The reference here holds clusters of real
images only, so that no single picture's features are kept.

- Precision: the share of the images that lie in the ball of their nearest cluster. A ball holds `HELD` of the cluster's
  own images, so real images reach about `HELD`.
- Recall: how much of the real images' histogram over the clusters the images' histogram covers, sum_k min(p_k, q_k);
  this is the middle of the precision-recall curve of Sajjadi et al. Chance alone keeps n images below 1, and lets fewer
  images cover less, so the sum is divided by what n real images cover on average: they reach about 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .reference_file import ReferenceFile
from .statistics import check_features

CLUSTERS = 64  # at most
SMALLEST = 10  # images in the smallest cluster: a centre is never that of one or two pictures
HELD = 0.9
ENOUGH = 10  # images; of fewer, a single one moves precision by more than the 1 - HELD that real images lack
_ROUNDS = 30  # of k-means
_DRAWS = 200  # simulated sets of real images


@dataclass(frozen=True, eq=False)
class ClusterReference(ReferenceFile):
    """Clusters of the features of real images.

    Attributes:
        n: Number of images.
        centres: (k, d) float64 means of the clusters.
        shares: (k,) share of the images in each cluster, adding up to 1.
        radii: (k,) distance from the centre within which `HELD` of the cluster's images lie.
        encoder: Name of the encoder.
        encoder_hash: Its content hash.

    Raises:
        ValueError: if the shapes do not fit each other, or a value is out of range.
    """

    FORMAT: ClassVar[str] = "adaptive-diffusion/clusters/1"
    WHAT: ClassVar[str] = "the clusters of a reference"

    n: int
    centres: np.ndarray
    shares: np.ndarray
    radii: np.ndarray
    encoder: str
    encoder_hash: str

    def __post_init__(self) -> None:
        k = len(self.shares)
        if self.centres.ndim != 2 or not len(self.centres) == k == len(self.radii):
            raise ValueError(f"centres must be (k, d), shares and radii (k,), got {self.centres.shape} and {k} shares")
        if not all(np.isfinite(values).all() for values in (self.centres, self.shares, self.radii)):
            raise ValueError("the clusters must be finite")
        if (self.shares < 0).any() or (self.radii < 0).any() or abs(self.shares.sum() - 1) > 1e-6:
            raise ValueError("shares must be >= 0 and add up to 1, and radii must be >= 0")

    @classmethod
    def from_features(
        cls, features: Any, encoder: str, encoder_hash: str, clusters: int = CLUSTERS, seed: int = 0
    ) -> ClusterReference:
        """Cluster (n, d) features by k-means; clusters of fewer than `SMALLEST` images are dissolved.

        Args:
            features: Features of real images.
            encoder: Name of their encoder.
            encoder_hash: Its content hash.
            clusters: Clusters to begin with; fewer where images are few.
            seed: Seed of the first centres.

        Raises:
            ValueError: as `check_features`.
        """
        x = check_features(features)
        k = max(1, min(clusters, len(x) // (2 * SMALLEST)))
        centres = x[np.random.default_rng(seed).choice(len(x), k, replace=False)]

        for _ in range(_ROUNDS):
            own, _ = _nearest(x, centres)
            counts = np.bincount(own, minlength=len(centres))
            large = counts >= min(SMALLEST, counts.max())
            centres = np.stack([x[own == c].mean(axis=0) for c in np.flatnonzero(large)])

        own, distances = _nearest(x, centres)
        counts = np.bincount(own, minlength=len(centres))
        radii = np.array([np.quantile(distances[own == c], HELD) if counts[c] else 0.0 for c in range(len(centres))])
        return cls(len(x), centres, counts / len(x), radii, encoder, encoder_hash)

    def precision(self, features: Any) -> float:
        """Share of the images in the ball of their nearest cluster, in [0, 1]."""
        own, distances = self._own(features)
        return float((distances <= self.radii[own]).mean())

    def recall(self, features: Any) -> float:
        """Share of the real images' histogram that is covered, in units of what as many real images cover; >= 0."""
        own, _ = self._own(features)
        expected, _ = self.real_coverage(len(own))
        return self._coverage(np.bincount(own, minlength=len(self.shares))) / expected

    def real_coverage(self, n: int) -> tuple[float, float]:
        """Mean and spread of sum_k min(p_k, q_k) over simulated sets of n real images.

        The shares p_k are those of a finite number of images too. Chance moves both, q_k by p_k / n and p_k by p_k / N,
        as if fewer than n images were compared with exact shares.
        """
        fewer = max(1, round(n * self.n / (n + self.n)))
        drawn = np.random.default_rng(0).multinomial(fewer, self.shares / self.shares.sum(), _DRAWS)
        found = [self._coverage(counts) for counts in drawn]
        return float(np.mean(found)), float(np.std(found))

    def caveat(self, n: int) -> str | None:
        """The caveat of precision and recall of n images where these or the real images are few, or None."""
        if n < ENOUGH:
            return f"not meaningful in itself: {n} images are fewer than {ENOUGH}, so that a single one decides"
        if len(self.shares) < 2:
            return f"not meaningful in itself: {self.n} real images make one cluster, which every image belongs to"
        return None

    def _coverage(self, counts: np.ndarray) -> float:
        return float(np.minimum(self.shares, counts / counts.sum()).sum())

    def _own(self, features: Any) -> tuple[np.ndarray, np.ndarray]:
        """The cluster of each image (n,), and the distance to its centre (n,)."""
        return _nearest(check_features(features, width=self.centres.shape[1]), self.centres)


def _nearest(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest centre (n,), and the distance to it (n,)."""
    squares = np.square(x).sum(axis=1)[:, None] - 2 * x @ centres.T + np.square(centres).sum(axis=1)
    own = squares.argmin(axis=1)
    return own, np.sqrt(np.maximum(squares[np.arange(len(x)), own], 0.0))
