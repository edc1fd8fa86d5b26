"""Where to evaluate the model: grids of timesteps. The step after the last one leads to the clean picture."""

from __future__ import annotations

import numpy as np


def power_grid(num_train_timesteps: int, n: int, power: float) -> np.ndarray:
    """t_i = (T - 1) (1 - i / N)^power: the larger the power, the more steps at low noise.

    Args:
        num_train_timesteps: T.
        n: Number of timesteps, >= 1.
        power: > 0; 1 is the uniform grid, 2 the quadratic one of DDIM (Song et al., 2021, D.2).

    Returns:
        (n,) float64, strictly decreasing from T - 1.
    """
    return (num_train_timesteps - 1) * (1 - np.arange(n) / n) ** power


def uniform_grid(num_train_timesteps: int, n: int) -> np.ndarray:
    """(n,) timesteps equally spaced from T - 1, the one after the last being 0."""
    return power_grid(num_train_timesteps, n, 1.0)


def bounded_power(n: int, power: float, target: float, min_ratio: float, max_ratio: float) -> float:
    """The power nearest to `target` whose N steps all are `min_ratio` to `max_ratio` times those of `power`.

    Args:
        n: Number of steps, >= 1.
        power: Power of the reference grid.
        target: Power wished for.
        min_ratio: In [0, 1].
        max_ratio: >= 1.

    Returns:
        A power between `power` and `target`.
    """

    def allowed(p: float) -> bool:
        ratio = np.diff(nodes**p) / reference
        return bool(ratio.min() >= min_ratio and ratio.max() <= max_ratio)

    nodes = np.arange(n + 1) / n
    reference = np.diff(nodes**power)
    if allowed(target):
        return target
    good, bad = power, target
    for _ in range(40):  # the ratios drift from 1 monotonically in p, so bisection finds where one leaves its bounds
        middle = (good + bad) / 2
        good, bad = (middle, bad) if allowed(middle) else (good, middle)
    return good
