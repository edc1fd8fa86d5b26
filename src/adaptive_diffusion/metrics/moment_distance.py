"""The distance of a few images to real ones in mean and covariance, without the bias of a Frechet distance.

Features are centred and whitened: z = (3/4 C + 1/4 I tr(C)/d)^(-1/2) (x - mean), with mean and covariance C of the real
features. C is shrunk by a quarter towards equal variances, so that directions in which real features hardly vary stay
small. The kernel z . w + (z . w)^2 / 2d compares means (the Mahalanobis distance) and second moments. It is a
polynomial of degree two, so its mean over all real images follows from their mean and covariance, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .statistics import FeatureStatistics, check_features

# by this the signal is largest against the noise in the worst of four domains: docs/evidence/moment_distance.md
SHRINKAGE = 0.25


@dataclass(frozen=True, eq=False)
class MomentDistance:
    """The squared distance |mean of z|^2 + |M - R|^2 / 2d, M and R the second moments of z, of images and real images.

    Args:
        real: Statistics of the real images, in d dimensions.

    Raises:
        ValueError: for real images that are all alike.
    """

    real: FeatureStatistics

    def __post_init__(self) -> None:
        if not np.trace(self.real.covariance) > 0:
            raise ValueError("the real images are all alike; give images that differ")

    def contributions(self, features: Any) -> np.ndarray:
        """What each of some images adds to their distance to the real images: the mean is the distance, unbiased.

        The spread is that of the witness function (Gretton et al., 2012): the mean kernel of an image to the real
        images, minus that to the other images. To first order, the distance changes by twice the witness function
        with the share of such images. So the standard error of the mean is that of the distance. The standard error
        of the mean difference to contributions from the same noises is that of the difference of distances.

        Args:
            features: (n, d) features of the same encoder, n >= 2.

        Returns:
            (n,) float64, of either sign: distance - 2 (witness - mean witness).

        Raises:
            ValueError: for unfit features, or features of another width.
        """
        z = self._whitened(features)
        kernel = _kernel(z @ z.T, z.shape[1])
        np.fill_diagonal(kernel, 0.0)
        others, real = kernel.sum(axis=1) / (len(z) - 1), ((z @ self._second) * z).sum(axis=1) / (2 * z.shape[1])

        witness = real - others
        within = float((self._second**2).sum()) / (2 * z.shape[1])
        return np.asarray(others.mean() - 2 * real.mean() + within - 2 * (witness - witness.mean()))

    def _whitened(self, features: Any) -> np.ndarray:
        x = check_features(features, width=len(self.real.mean))
        return np.asarray((x - self.real.mean) @ self._whitening)

    @cached_property
    def _whitening(self) -> np.ndarray:
        """(d, d) what turns centred features into z."""
        values, vectors = np.linalg.eigh(self.real.covariance)
        return np.asarray(vectors / np.sqrt((1 - SHRINKAGE) * np.maximum(values, 0.0) + SHRINKAGE * values.mean()))

    @cached_property
    def _second(self) -> np.ndarray:
        """(d, d) second moment of z over the real images, whose mean is 0."""
        n, w = self.real.n, self._whitening
        return np.asarray(w.T @ self.real.covariance @ w * ((n - 1) / n))


def _kernel(products: np.ndarray, dimensions: int) -> np.ndarray:
    return np.asarray(products + products**2 / (2 * dimensions))
