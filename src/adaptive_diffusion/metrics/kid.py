"""Kernel distance between two sets of features (KID: Binkowski et al., 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .statistics import check_features

FEWEST = 32  # images in a subset; below, a spread may be a sixth of the error of the mean, see docs/notes/tried.md
_ROWS = 1024  # rows of the kernel matrix per block, which bounds the memory


@dataclass(frozen=True)
class KernelDistance:
    """Unbiased squared maximum mean discrepancies (MMD^2) of random subsets.

    Attributes:
        mean: Mean over the subsets. Its expectation is 0 for two samples of one distribution, so it may be negative.
        std: Standard deviation over the subsets. Subsets overlap, so this is not the error of `mean`.
        subsets: Number of subsets.
        subset_size: Images of either set in a subset.
    """

    mean: float
    std: float
    subsets: int
    subset_size: int


def kernel_distance(
    a: Any, b: Any, *, subsets: int = 100, subset_size: int | None = None, seed: int = 0
) -> KernelDistance:
    """MMD^2 with the kernel (x . y / d + 1)^3, unbiased, over random subsets. Float64.

    Args:
        a: (n, d) features.
        b: (m, d) features of the same encoder.
        subsets: Number of random subsets.
        subset_size: Images of either set in a subset, in [2, min(n, m)]. Default: 1000, or half of the smaller set
            if that is less (subsets equal to the whole set would have no spread).
        seed: Seed of the subsets.

    Raises:
        ValueError: if the features are unfit (see `check_features`) or of different width, or `subset_size` does not
            fit them.
    """
    x, y = check_features(a, "the first features"), check_features(b, "the second features")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"both sets need features of the same width, got {x.shape[1]} and {y.shape[1]}")

    size = subset_size_for(min(len(x), len(y)), subsets, subset_size)
    rng = np.random.default_rng(seed)
    in_x, in_y = (choose_subsets(rng, len(z), subsets, size) for z in (x, y))

    # MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y); x and x' are different images.
    within = (kernel_sums(x, x, in_x, in_x, diagonal=False) + kernel_sums(y, y, in_y, in_y, diagonal=False)) / (
        size * (size - 1)
    )
    values = within - 2 * kernel_sums(x, y, in_x, in_y) / size**2

    return KernelDistance(float(values.mean()), float(values.std()), subsets, size)


def kernel_caveat(value: float, spread: float | None, subset_size: int, real: int) -> str | None:
    """The caveat of a kernel distance of few images, or within the spread of its subsets; None beyond.

    Few images have few different subsets, which overlap, so their spread is too small to be trusted.

    Args:
        value: The distance.
        spread: Standard deviation of the subsets; None if each subset was the whole set.
        subset_size: Images in a subset.
        real: Real images; if they are all in each subset, the spread does not show their noise.
    """
    if real < subset_size:
        return (
            f"not meaningful in itself: unbiased, but noise dominates with {real} real images, fewer than the "
            f"{subset_size} of a subset"
        )
    if spread is not None and abs(value) > spread and subset_size >= FEWEST:
        return None
    return (
        f"not meaningful in itself: unbiased, but in subsets of {subset_size} images noise dominates; draw more images"
    )


def subset_size_for(smaller: int, subsets: int, given: int | None) -> int:
    """Check the size of a subset, or choose the default.

    Args:
        smaller: Images in the smaller set.
        subsets: Number of subsets.
        given: The wanted size, or None for the default.

    Raises:
        ValueError: if the size is out of range, or there are no subsets.
    """
    size = max(2, min(1000, smaller // 2)) if given is None else given
    if not 2 <= size <= smaller or subsets < 1:
        raise ValueError(
            f"subset_size must lie in [2, {smaller}], the smaller set, and subsets be positive; "
            f"got subset_size {size} and subsets {subsets}"
        )

    return size


def choose_subsets(rng: np.random.Generator, n: int, subsets: int, size: int) -> np.ndarray:
    """(n, subsets) indicators, 0 or 1, of random subsets without replacement."""
    chosen = np.zeros((n, subsets))
    for column in chosen.T:
        column[rng.permutation(n)[:size]] = 1.0
    return chosen


def kernel_sums(x: np.ndarray, y: np.ndarray, in_x: np.ndarray, in_y: np.ndarray, diagonal: bool = True) -> np.ndarray:
    """(subsets,) sums of k(x_i, y_j) over each subset; each kernel value is computed once for all subsets.

    Args:
        x: (n, d) features.
        y: (m, d) features.
        in_x: (n, subsets) indicators of the subsets of x.
        in_y: (m, subsets) indicators of the subsets of y.
        diagonal: Whether k(x_i, y_i) counts.
    """
    total = np.zeros(in_x.shape[1])
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        kernel = (x[rows] @ y.T / x.shape[1] + 1.0) ** 3  # (rows, m)
        if not diagonal:
            np.fill_diagonal(kernel[:, start:], 0.0)
        total += (in_x[rows] * (kernel @ in_y)).sum(axis=0)

    return total
