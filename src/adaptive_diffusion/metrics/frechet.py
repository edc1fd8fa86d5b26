"""Frechet distance between two sets of features (Dowson & Landau, 1982; Heusel et al., 2017)."""

from __future__ import annotations

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

    The trace of the root is the nuclear norm of A B^T with C_a = A^T A and C_b = B^T B, which needs no matrix root and
    stays exact for rank-deficient covariances. A and B are triangular factors of the centred features. Float64.

    Args:
        a: (n, d) features, n >= 2.
        b: (m, d) features, m >= 2. The bias of the distance falls as 1/n + 1/m: compare only at equal sizes.

    Returns:
        The squared distance, >= 0 up to rounding.

    Raises:
        ValueError: for arrays of another shape, fewer than two rows, or values that are not finite.
    """
    (mean_a, factor_a), (mean_b, factor_b) = _mean_and_factor(a), _mean_and_factor(b)
    if len(mean_a) != len(mean_b):
        raise ValueError(f"both sets need features of the same width, got {len(mean_a)} and {len(mean_b)}")
    cross = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    return float(((mean_a - mean_b) ** 2).sum() + (factor_a**2).sum() + (factor_b**2).sum() - 2 * cross)


def _mean_and_factor(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and a factor F (min(n, d), d) of the unbiased covariance, C = F^T F."""
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"features must be (n, d) with n >= 2, got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("features must be finite, got NaN or infinity; check the pictures they were computed from")
    mean = x.mean(axis=0)
    centred = (x - mean) / np.sqrt(len(x) - 1)
    factor: np.ndarray = np.linalg.qr(centred, mode="r") if len(x) > x.shape[1] else centred  # type: ignore[assignment]
    return mean, factor
