"""Which images of a data set are held back from training: rules that recipes choose by name."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

log = logging.getLogger(__name__)


def per_label(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Random rows, the same share of each label; at least one image of each label is left to train on.

    Args:
        labels: (N,) whole numbers; images without a label, -1, count as a label of their own.
        fraction: Share of the rows, in [0, 1).
        seed: Decides about the random choice.

    Returns:
        Row numbers, in an order whose first n are spread over the labels as well, for any n.
    """
    rng = np.random.default_rng(seed)

    # every label spreads its rows evenly over [0, 1); the first rows by place are then of all labels in proportion
    place = np.empty(len(labels))

    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        place[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
        place[rows[-1]] = np.inf  # always trained on

    count = min(round(len(labels) * fraction), int(np.isfinite(place).sum()))
    return np.argsort(place, kind="stable")[:count]


def tail(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The last rows, as in the training of the shipped assets; arguments as for `per_label`.

    Where the rows are sorted by label, the last labels are not trained at all.
    """
    return np.arange(len(labels) - round(len(labels) * fraction), len(labels))


SPLITS: dict[str, Callable[[np.ndarray, float, int], np.ndarray]] = {"per_label": per_label, "tail": tail}
