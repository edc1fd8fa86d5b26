"""`python -m benchmarks frechet`: the Frechet distance by nuclear norm against SciPy's matrix root."""

from __future__ import annotations

import argparse

import numpy as np

from adaptive_diffusion.metrics.frechet import frechet_distance
from benchmarks.common import seconds


def main(argv: list[str]) -> None:
    """Time both on the same features in one process, and print the distance of a set to itself by either."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks frechet", description=__doc__)
    parser.add_argument("--dimensions", type=int, default=2048, help="width of the features")
    parser.add_argument("--images", type=int, default=2000, help="feature vectors in either set")
    parser.add_argument("--rounds", type=int, default=3, help="of our method, of which the median counts")
    options = parser.parse_args(argv)

    rng = np.random.default_rng(0)
    spread = 1 / np.sqrt(np.arange(1, options.dimensions + 1))  # a decaying spectrum, as features of images have
    a, b = (rng.standard_normal((options.images, options.dimensions)) * spread for _ in range(2))
    b += 0.01
    trace = float(np.var(a, axis=0, ddof=1).sum()) * 2

    found: list[float] = []
    ours = float(np.median([seconds(lambda: found.append(frechet_distance(a, b))) for _ in range(options.rounds)]))
    theirs = seconds(lambda: found.append(_textbook(a, b)))
    print(f"{options.images} images, {options.dimensions} dimensions, Tr(C_a + C_b) = {trace:.4g}")
    print(f"{'':<14} {'seconds':>8} {'distance':>12} {'of itself / trace':>18}")
    print(f"{'nuclear norm':<14} {ours:8.2f} {found[0]:12.6f} {frechet_distance(a, a) / trace:18.1e}")
    print(f"{'scipy sqrtm':<14} {theirs:8.2f} {found[-1]:12.6f} {_textbook(a, a) / trace:18.1e}")
    print(f"ratio          {theirs / ours:8.1f}x")


def _textbook(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook formula with a matrix root, as in pytorch-fid, clean-fid and EDM."""
    import scipy.linalg

    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(covariance_a @ covariance_b).real
    shift = float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum())
    return shift + float(np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.trace(root))
