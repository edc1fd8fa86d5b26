"""Which images of a data set are kept back from training: rules that recipes choose by name."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

log = logging.getLogger(__name__)


def per_label(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Rows drawn at random, of each label its share; every label keeps at least one image to train on.

    Args:
        labels: (N,) labels as whole numbers, -1 for none, which counts as one more label.
        fraction: The share to keep back, in [0, 1).
        seed: Decides which.

    Returns:
        Row numbers; the first n of them are of all labels as well.
    """
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))  # in [0, 1): spread evenly over each label, and over all labels together

    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        place[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
        place[rows[-1]] = np.inf  # is trained on

    count = min(round(len(labels) * fraction), int(np.isfinite(place).sum()))
    return np.argsort(place, kind="stable")[:count]


def tail(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The last rows, one block, as the assets that ship were trained; arguments as for `per_label`.

    Where the rows are sorted by label, whole labels are never trained.
    """
    return np.arange(len(labels) - round(len(labels) * fraction), len(labels))


SPLITS: dict[str, Callable[[np.ndarray, float, int], np.ndarray]] = {"per_label": per_label, "tail": tail}
