"""Statistics of a set of features: number, mean, covariance, and the encoder of the features."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import mlx.core as mx
import numpy as np

from ..errors import UnusableFile
from ..io.array_file import array_names
from .reference_file import ReferenceFile


def check_features(features: Any, what: str = "features", *, width: int | None = None) -> np.ndarray:
    """Check features and return them as a float64 array.

    Args:
        features: (n, d) floating NumPy or MLX array, n >= 2.
        what: Name of the features in the error.
        width: The d of the reference that they are compared with; None: any.

    Raises:
        ValueError: for another type or shape, fewer than two rows, or values that are not finite.
    """
    if isinstance(features, mx.array) and features.dtype == mx.bfloat16:
        features = features.astype(mx.float32)  # NumPy has no bfloat16

    x = np.asarray(features)
    if x.ndim != 2 or len(x) < 2 or x.shape[1] < 1:
        raise ValueError(f"{what} must be (n, d) with n >= 2, got shape {x.shape}")
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"{what} must be floating point, got {x.dtype}; give an encoder's output, not images")

    x = x.astype(np.float64, copy=False)
    bad = int((~np.isfinite(x).all(axis=1)).sum())
    if bad:
        raise ValueError(
            f"{what} must be finite, got NaN or infinity in {bad} of {len(x)} rows; "
            "check the images they were computed from"
        )
    if width not in (None, x.shape[1]):
        raise ValueError(f"the reference has features of width {width}, got {x.shape[1]}")

    return x


def mean_and_centred(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and X (n, d) such that X^T X is the unbiased covariance."""
    mean = features.mean(axis=0)
    return mean, (features - mean) / np.sqrt(len(features) - 1)


def triangular(centred: np.ndarray) -> np.ndarray:
    """A factor F (min(n - 1, d), d) with F^T F = X^T X, for X (n, d) whose rows add up to zero.

    F is better conditioned than X^T X. Up to n = d, the Householder reflection of (1, ..., 1) onto the first axis makes
    the first row zero, since the rows add up to zero, and gives the other n - 1 rows.
    """
    n, d = centred.shape
    if n > d:
        return np.asarray(np.linalg.qr(centred, mode="r"))
    return centred[1:] - centred[0] / (1 + np.sqrt(n))


@dataclass(frozen=True, eq=False)
class FeatureStatistics(ReferenceFile):
    """Mean and covariance of a set of features.

    Attributes:
        n: Number of images, at least 2.
        mean: (d,) float64.
        covariance: (d, d) float64, unbiased (divided by n - 1).
        encoder: Name of the encoder, e.g. "inception_v3/2048".
        encoder_hash: Content hash of the encoder; statistics of different hashes are never compared.

    Raises:
        ValueError: if the shapes do not fit each other, a value is not finite, or `covariance` is no covariance.
    """

    FORMAT: ClassVar[str] = "adaptive-diffusion/feature-statistics/1"
    WHAT: ClassVar[str] = "the statistics of features"

    n: int
    mean: np.ndarray
    covariance: np.ndarray
    encoder: str
    encoder_hash: str
    _centred: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        mean, covariance = np.asarray(self.mean, np.float64), np.asarray(self.covariance, np.float64)
        if self.n < 2:
            raise ValueError(f"statistics need at least 2 images for a covariance, got n = {self.n}")
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(f"mean must be (d,) and covariance (d, d), got {mean.shape} and {covariance.shape}")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ValueError("mean and covariance must be finite, got NaN or infinity; compute the statistics again")

        scale = float(np.abs(covariance).max(initial=0.0))
        if (np.diag(covariance) < 0).any() or not np.allclose(covariance, covariance.T, rtol=0, atol=1e-6 * scale):
            raise ValueError("covariance must be symmetric with a diagonal >= 0; give the matrix that np.cov returns")
        if not self.encoder or not self.encoder_hash:
            raise ValueError("statistics need the encoder's name and content hash, so that encoders are never mixed")

        object.__setattr__(self, "n", int(self.n))
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)

    @classmethod
    def from_features(cls, features: Any, encoder: str, encoder_hash: str) -> FeatureStatistics:
        """Compute the statistics of (n, d) features, n >= 2.

        Raises:
            ValueError: as `check_features`.
        """
        x = check_features(features)
        mean, centred = mean_and_centred(x)
        return cls(len(x), mean, centred.T @ centred, encoder, encoder_hash, centred)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file of `save`; see `ReferenceFile.load`."""
        if {"mu", "sigma"} <= set(array_names(path)):
            raise UnusableFile(
                f"{path} holds mu and sigma but neither the sample size nor the encoder; if you know them, build "
                "FeatureStatistics(n, mu, sigma, encoder, encoder_hash) and save that"
            )
        return super().load(path)

    @cached_property
    def factor(self) -> np.ndarray:
        """A factor F (r, d) with covariance = F^T F, from the features if they are in memory."""
        if self._centred is not None:
            return triangular(self._centred)

        values, vectors = np.linalg.eigh((self.covariance + self.covariance.T) / 2)

        # Eigenvalues within the rounding error are zero; the sum of their square roots would be an error.
        positive = values > len(values) * np.finfo(np.float64).eps * values[-1]
        return np.sqrt(values[positive])[:, None] * vectors[:, positive].T


def check_same_encoder(a: FeatureStatistics, b: FeatureStatistics) -> None:
    """Refuse to compare statistics of different encoders.

    Raises:
        ValueError: if the encoders differ.
    """
    if (a.encoder, a.encoder_hash) != (b.encoder, b.encoder_hash):
        raise ValueError(
            f"statistics of different encoders cannot be compared: {a.encoder} ({a.encoder_hash[:12]}) and "
            f"{b.encoder} ({b.encoder_hash[:12]}); compute both with the same one"
        )
