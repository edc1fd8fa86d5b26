"""The regressions by which quality is estimated, fitted to errors that were measured; see `QualityEstimator`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaptive_diffusion.sampling.quality import FEATURES, OF_THE_PICTURE, STILL


def fit_weights(steps: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Regress log errors on the features of images at steps.

    The weights of what the image shows come from differences between the images of a step alone, lest the steps,
    which differ far more, decide them too; then those of what the step shows from what is left.

    Args:
        steps: For each step (N, F) features and (N,) RMSE > 0 of its images, N >= 2.

    Returns:
        `constant` and the weights, by name.
    """
    own, error = len(OF_THE_PICTURE), [np.log(e.astype(np.float64)) for _, e in steps]
    seen = [f.astype(np.float64) for f, _ in steps]
    slopes = _least_squares(
        np.concatenate([f[:, -own:] - f[:, -own:].mean(axis=0) for f in seen]),
        np.concatenate([e - e.mean() for e in error]),
    )
    rest = [e - f[:, -own:] @ slopes for e, f in zip(error, seen, strict=True)]
    base = np.concatenate([np.insert(f[:, :-own], 0, 1, axis=1) for f in seen])
    constant, *others = _least_squares(base, np.concatenate(rest))
    return {"constant": float(constant), **dict(zip(FEATURES, map(float, [*others, *slopes]), strict=True))}


def fit_still(features: np.ndarray, errors: np.ndarray) -> dict[str, float]:
    """Regress log errors, (M,), on the features of images without a history, (M, 2): `constant` and the weights."""
    constant, *slopes = _least_squares(np.insert(features.astype(np.float64), 0, 1, axis=1), np.log(errors))
    return {"constant": float(constant), **dict(zip(STILL, map(float, slopes), strict=True))}


def _least_squares(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.lstsq(matrix, values, rcond=None)[0])
