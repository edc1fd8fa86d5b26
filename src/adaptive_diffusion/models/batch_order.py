"""Which images make up which batch of a training, as a pure function of the seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class BatchOrder:
    """The images of batch number `step`: groups take turns, and each group is reshuffled every epoch.

    The order depends on seed and step alone, so a training can resume at any step and split a batch over processes.

    Args:
        group_sizes: Number of images in each group, all positive.
        batch_size: Images per batch.
        seed: Seed of the order and of the flips.
    """

    def __init__(self, group_sizes: list[int], batch_size: int, seed: int):
        self._sizes, self._batch_size, self._seed = group_sizes, batch_size, seed
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}  # group -> epoch, its order

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Group (B,), row within the group (B,) and whether to mirror (B,) of each image of batch `step`."""
        slots = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        groups = slots % len(self._sizes)
        draws = slots // len(self._sizes)

        rows = np.array([self._row(g, d) for g, d in zip(groups.tolist(), draws.tolist(), strict=True)])
        mirror = np.random.default_rng([self._seed, 1, step]).random(self._batch_size) < 0.5
        return groups, rows, mirror

    def _row(self, group: int, draw: int) -> int:
        """The row of the `draw`-th image taken from a group."""
        epoch, position = divmod(draw, self._sizes[group])

        # only the current epoch's order is remembered
        if self._permutations.get(group, (-1,))[0] != epoch:
            rng = np.random.default_rng([self._seed, 0, group, epoch])
            self._permutations[group] = epoch, rng.permutation(self._sizes[group])

        return int(self._permutations[group][1][position])


def chosen(
    sets: Sequence[tuple[np.ndarray, np.ndarray]], groups: np.ndarray, rows: np.ndarray, mirror: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The (B, H, W, C) images of a batch of `BatchOrder`, mirrored where it says so, and their (B, ...) labels.

    `sets` holds the (N, H, W, C) images of each group, and their (N, ...) labels.
    """
    images = [sets[g][0][r][:, ::-1] if m else sets[g][0][r] for g, r, m in zip(groups, rows, mirror, strict=True)]
    return np.stack(images), np.stack([sets[g][1][r] for g, r in zip(groups, rows, strict=True)])
