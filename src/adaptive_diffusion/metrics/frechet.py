"""Frechet distance between two sets of features (Dowson & Landau, 1982; Heusel et al., 2017)."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from .statistics import FeatureStatistics, check_features, check_same_encoder, mean_and_centred, triangular

# Largest accepted error of the logarithm of the product of all singular values.
LARGEST_MISS = 1e-6
# With fewer images per dimension, the bias is about as large as the distance itself.
SAMPLES_PER_DIMENSION = 4


def frechet_distance(a: Any, b: Any) -> float:
    """Frechet distance |mean_a - mean_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)), in float64.

    With C_a = A^T A and C_b = B^T B, the trace of the root is the nuclear norm of A B^T. The nuclear norm needs no
    matrix root and stays exact for rank-deficient covariances. The rounding error is below 1e-12 of Tr(C_a + C_b), see
    docs/notes/tried.md.

    Args:
        a: (n, d) features, n >= 2, or `FeatureStatistics`.
        b: (m, d) features, m >= 2, or `FeatureStatistics` where `a` is. The bias of the distance falls as 1/n + 1/m,
            so only distances at equal sizes can be compared; see `frechet_caveat`.

    Returns:
        The squared distance, >= 0 up to rounding.

    Raises:
        ValueError: for arrays of another shape, fewer than two rows, values that are not finite, statistics of
            different encoders, or statistics on one side only (features do not name their encoder).
    """
    if isinstance(a, FeatureStatistics) and isinstance(b, FeatureStatistics):
        check_same_encoder(a, b)
    elif isinstance(a, FeatureStatistics) or isinstance(b, FeatureStatistics):
        raise ValueError(
            "give features on both sides or statistics on both; FeatureStatistics.from_features turns features into "
            "statistics that name their encoder"
        )

    return _distance(_mean_and_factor(a), _mean_and_factor(b))


def frechet_caveat(n: int, dimensions: int, what: str = "images") -> str | None:
    """The caveat of a Frechet distance of few images; None for enough images.

    Args:
        n: Images in one of the two sets.
        dimensions: Width of the features.
        what: Which images these are.
    """
    if n >= SAMPLES_PER_DIMENSION * dimensions:
        return None
    return (
        f"not meaningful in itself: {n} {what} are fewer than {SAMPLES_PER_DIMENSION} x {dimensions} dimensions, "
        "so bias dominates; compare it only with distances at the same size"
    )


def _distance(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """Frechet distance of two (mean, factor) pairs, see `_mean_and_factor`."""
    (mean_a, factor_a), (mean_b, factor_b) = a, b
    if len(mean_a) != len(mean_b):
        raise ValueError(f"both sets need features of the same width, got {len(mean_a)} and {len(mean_b)}")

    cross = nuclear_norm(factor_a @ factor_b.T)  # Tr (C_a C_b)^(1/2)
    shift, traces = mean_a - mean_b, np.vdot(factor_a, factor_a) + np.vdot(factor_b, factor_b)
    return float(shift @ shift + traces - 2 * cross)


def nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of the singular values of a matrix M (m, n), float64.

    The squares of the singular values are the eigenvalues of R R^T with M = Q R. Eigenvalues of M M^T would have half
    the digits only. The rows of R, however, fall in size with the singular values, and for such a graded matrix
    Householder's reduction finds small eigenvalues about as precisely as large ones.

    A gap of many orders of magnitude in the spectrum breaks this. Then the product of the eigenvalues differs from
    det(R)^2, and the singular values are computed by their own decomposition, which takes twice as long.
    """
    tall = matrix if len(matrix) >= matrix.shape[1] else matrix.T
    with _one_thread():
        r = np.asarray(np.linalg.qr(tall, mode="r"))
        squares = np.linalg.eigvalsh(r @ r.T)

        # A singular matrix, or an eigenvalue rounded to below zero, gives a miss of infinity or NaN.
        with np.errstate(divide="ignore", invalid="ignore"):
            miss = np.log(squares).sum() / 2 - np.log(np.abs(np.diag(r))).sum()

        if abs(miss) < LARGEST_MISS:
            return float(np.sqrt(squares).sum())
        return float(np.linalg.svd(r, compute_uv=False).sum())


def _mean_and_factor(given: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and a factor F (r, d) of the unbiased covariance, C = F^T F."""
    with _one_thread():
        if isinstance(given, FeatureStatistics):
            return given.mean, given.factor
        mean, centred = mean_and_centred(check_features(given))
        return mean, triangular(centred)


def _one_thread() -> contextlib.AbstractContextManager[object]:
    """Limit the BLAS to one thread.

    A decomposition is a chain of thousands of short matrix products. The threads of OpenBLAS wait for each other after
    every product, which is slow on a busy machine (docs/notes/tried.md).
    """
    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ImportError:  # scikit-learn installs it, a dependency of mlflow; it changes the speed only
        return contextlib.nullcontext()

    return threadpool_limits(1, user_api="blas")
