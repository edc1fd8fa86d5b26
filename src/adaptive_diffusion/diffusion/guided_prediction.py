"""The guided prediction of a batch, weak + weight * (strong - weak), in as few passes through a network as it takes."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from ..types import Denoiser
from .arrays import replaced


def guided(
    predict: Denoiser,
    x: mx.array,
    t: mx.array,
    condition: mx.array | None,
    weight: float | np.ndarray,
    weaker: Denoiser | None = None,
) -> tuple[mx.array, int]:
    """The guided prediction, and how many passes through a network all images took together.

    Args:
        predict: The network.
        x: (b, H, W, C) noisy images.
        t: (b,) timesteps.
        condition: (b, ...) conditions, or None.
        weight: Of guidance, for all images, or (b,) one for each.
        weaker: Predicts with the same condition what guidance leads away from; None: `predict` with the null condition.
    """
    if condition is not None and weaker is None and np.any(weight == 0):  # the prediction with the null condition alone
        none = mx.array(np.broadcast_to(weight == 0, len(x))).reshape(-1, *[1] * (condition.ndim - 1))
        condition, weight = mx.where(none, 0, condition), np.where(weight == 0, 1, weight)
    if (condition is None and weaker is None) or np.all(weight == 1):
        return predict(x, t, condition), len(x)
    if isinstance(weight, np.ndarray):
        return _guided_some(predict, x, t, condition, weight, weaker)

    strong, weak = _pair(predict, weaker, (x, t, condition), (x, t, condition))
    return weak + weight * (strong - weak), 2 * len(x)


def _guided_some(
    predict: Denoiser,
    x: mx.array,
    t: mx.array,
    condition: mx.array | None,
    weights: np.ndarray,
    weaker: Denoiser | None,
) -> tuple[mx.array, int]:
    """The same with weights that differ: only the images that are guided take two passes."""
    rows = np.flatnonzero(weights != 1)
    at = mx.array(rows)
    guided_ones = x[at], t[at], None if condition is None else condition[at]
    strong, weak = _pair(predict, weaker, (x, t, condition), guided_ones)

    weight = mx.array(weights[rows].reshape(-1, *[1] * (weak.ndim - 1)), dtype=weak.dtype)
    steered = weak + weight * (strong[at] - weak)
    return replaced(strong, rows, steered), len(x) + len(rows)


Batch = tuple[mx.array, mx.array, mx.array | None]  # noisy images, timesteps, conditions


def _pair(predict: Denoiser, weaker: Denoiser | None, images: Batch, some: Batch) -> tuple[mx.array, mx.array]:
    """The predictions of all images, and what guidance leads some of them away from.

    The null condition is predicted in one batch with the condition.
    """
    if weaker is not None:
        return predict(*images), weaker(*some)

    (x, t, condition), (x_some, t_some, condition_some) = images, some
    assert condition is not None  # without, only a weaker network guides
    assert condition_some is not None
    both = mx.concatenate([condition, mx.zeros_like(condition_some)])
    predicted = predict(mx.concatenate([x, x_some]), mx.concatenate([t, t_some]), both)
    return predicted[: len(x)], predicted[len(x) :]
