"""Frechet distance between two sets of features (Dowson & Landau, 1982; Heusel et al., 2017)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from .statistics import FeatureStatistics, check_features, check_same_encoder, mean_and_centred, triangular

LARGEST_MISS = 1e-6  # in the logarithm of a product of singular values, at which they are taken to be right
SAMPLES_PER_DIMENSION = 4  # below this many images per dimension the bias is of the size of the distance itself


def frechet_distance(a: Any, b: Any) -> float:
    """|mean_a - mean_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

    The trace of the root is the nuclear norm of A B^T with C_a = A^T A and C_b = B^T B, which needs no matrix root and
    stays exact for rank-deficient covariances. A and B are triangular factors of the centred features, or symmetric
    ones of a stored covariance. Float64; the rounding error, e.g. of a set's distance from itself, is some 1e-15 of
    Tr(C_a + C_b), and was below 1e-12 of it for every spectrum tried, with gaps and without (`nuclear_norm`).

    Args:
        a: (n, d) features, n >= 2, or `FeatureStatistics`.
        b: (m, d) features, m >= 2, or `FeatureStatistics` where `a` is. The bias of the distance falls as 1/n + 1/m:
            compare only at equal sizes, and see `frechet_caveat`.

    Returns:
        The squared distance, >= 0 up to rounding.

    Raises:
        ValueError: for arrays of another shape, fewer than two rows, values that are not finite, statistics of
            different encoders, or statistics on one side only (nothing would say that the encoders agree).
    """
    if isinstance(a, FeatureStatistics) and isinstance(b, FeatureStatistics):
        check_same_encoder(a, b)
    elif isinstance(a, FeatureStatistics) or isinstance(b, FeatureStatistics):
        raise ValueError(
            "give features on both sides or statistics on both; FeatureStatistics.from_features turns features into "
            "statistics that name their encoder"
        )

    return _distance(_mean_and_factor(a), _mean_and_factor(b))


def frechet_caveat(n: int, dimensions: int) -> str | None:
    """What has to stand beside a Frechet distance of so few images, or None where there are enough.

    Args:
        n: Images in the smaller set.
        dimensions: Width of the features.
    """
    if n >= SAMPLES_PER_DIMENSION * dimensions:
        return None
    return (
        f"not meaningful in itself: {n} pictures are fewer than {SAMPLES_PER_DIMENSION} x {dimensions} dimensions, "
        "so bias dominates; compare it only with distances at the same size"
    )


@dataclass(frozen=True)
class FrechetInfinity:
    """A Frechet distance extrapolated to infinitely many images.

    Attributes:
        value: The intercept; unbiased in the extrapolated set only, may be negative.
        slope: Change per unit of 1/n; the bias at n images is slope / n.
        sizes: Subset sizes of the fit, increasing.
        distances: Frechet distance at each size, averaged over disjoint subsets.
        residual: Root mean square deviation of the points from the line.
    """

    value: float
    slope: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]
    residual: float


def frechet_infinity(
    features: Any, reference: Any, *, points: int = 15, smallest: int | None = None, seed: int = 0
) -> FrechetInfinity:
    """Frechet distance to a reference, extrapolated linearly in 1/n to n = infinity (Chong & Forsyth, 2020).

    The distance is measured on random subsets of several sizes and a line in 1/n is fitted to it; its intercept is the
    answer. The bias is 1/n only where n is well above d: below `SAMPLES_PER_DIMENSION` x d images the value is too
    small, often negative. The reference is used whole; its own bias stays in. Costs `points` distances.

    Args:
        features: (n, d) features of the images judged.
        reference: (m, d) features to compare with, or their `FeatureStatistics` (then the caller answers for the
            encoder being the same).
        points: Number of sizes, at least 2, evenly spaced between `smallest` and n.
        smallest: Smallest subset. Default: a quarter of n, but at least 2.
        seed: Seed of the subsets; the same features and seed give the same value.

    Raises:
        ValueError: as `frechet_distance`, or if the sizes do not fit n.
    """
    x = check_features(features)
    n = len(x)

    smallest = max(2, n // 4) if smallest is None else smallest
    if points < 2 or not 2 <= smallest < n:
        raise ValueError(f"need points >= 2 and 2 <= smallest < n = {n}, got points {points} and smallest {smallest}")

    rng = np.random.default_rng(seed)
    sizes = np.unique(np.linspace(smallest, n, points).round().astype(int))
    distances = []

    target = _mean_and_factor(reference)
    for size in sizes:
        order = rng.permutation(n)
        subsets = [order[i * size : (i + 1) * size] for i in range(n // size)]
        distances.append(np.mean([_distance(_mean_and_factor(x[rows]), target) for rows in subsets]))

    design = np.stack([np.ones(len(sizes)), 1 / sizes], axis=1)
    (value, slope), *_ = np.linalg.lstsq(design, np.array(distances), rcond=None)
    residual = np.sqrt(np.mean((design @ [value, slope] - distances) ** 2))

    return FrechetInfinity(
        float(value), float(slope), tuple(sizes.tolist()), tuple(map(float, distances)), float(residual)
    )


def _distance(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """The distance from (mean, factor) pairs."""
    (mean_a, factor_a), (mean_b, factor_b) = a, b
    if len(mean_a) != len(mean_b):
        raise ValueError(f"both sets need features of the same width, got {len(mean_a)} and {len(mean_b)}")

    cross = nuclear_norm(factor_a @ factor_b.T)
    shift, traces = mean_a - mean_b, np.vdot(factor_a, factor_a) + np.vdot(factor_b, factor_b)
    return float(shift @ shift + traces - 2 * cross)


def nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of the singular values of a matrix M (m, n), float64, in half the time of their decomposition.

    Their squares are the eigenvalues of R R^T with M = Q R. Those of M M^T would have half the digits only; but the
    rows of R become smaller as the singular values do, and of a matrix so graded Householder's reduction finds the
    small eigenvalues about as well as the large ones. Where it does not, as below a gap of many orders of magnitude,
    their product misses det(R)^2, and the singular values are computed after all.
    """
    tall = matrix if len(matrix) >= matrix.shape[1] else matrix.T
    with _one_thread():
        r = np.asarray(np.linalg.qr(tall, mode="r"))
        squares = np.linalg.eigvalsh(r @ r.T)
        with np.errstate(divide="ignore", invalid="ignore"):  # singular, or rounded to below zero: not a small miss
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
    """Keep the BLAS to one thread: a decomposition is thousands of short products in a row.

    OpenBLAS's threads wait for each other at every one. The eigenvalues of a 2000 x 2000 matrix take 0.6 s with one
    thread, and 15 s with two on a machine of two cores that has something else to do.
    """
    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ImportError:  # comes with scikit-learn, which mlflow brings; without it, the answer is the same
        return contextlib.nullcontext()

    return threadpool_limits(1, user_api="blas")
