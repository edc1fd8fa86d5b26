"""How detailed images are, and how that bends the power grid of `AdaptiveScheduler`."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

DETAILED = 0.6  # complexity from which on the plain grid is kept


def complexity_of(sample: mx.array) -> float:
    """How much of the images' contrast lies between neighbouring pixels, in [0, 1].

    Args:
        sample: (B, H, W, C), or (H, W, C), at least 2x2 pixels.

    Raises:
        ValueError: for an array of another shape.
    """
    x = mx.array(sample)
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or min(x.shape[1:3]) < 2 or not x.size:
        raise ValueError(f"complexity needs images of shape (B, H, W, C), at least 2x2 pixels, got {sample.shape}")

    x = x.astype(mx.float32)
    contrast = mx.mean(mx.var(x, axis=(1, 2)), axis=-1)
    dy, dx = x[:, 1:] - x[:, :-1], x[:, :, 1:] - x[:, :, :-1]
    edges = mx.mean(dy * dy, axis=(1, 2, 3)) + mx.mean(dx * dx, axis=(1, 2, 3))
    # the floor, far below one grey level, keeps a constant image's rounding errors from counting as detail
    return float(np.asarray(mx.mean(mx.minimum(mx.sqrt(edges / (4 * contrast + 1e-8)), 1))))


def bent_power(n: int, power: float, complexity: float, min_ratio: float, max_ratio: float) -> float:
    """The power of a grid for content of some complexity: towards 1, equal steps in t, for simple content.

    Args:
        n: Number of steps, >= 1.
        power: That suits detailed content.
        complexity: In [0, 1].
        min_ratio: A step is at least this times the step of the plain grid, in [0, 1].
        max_ratio: And at most this times, >= 1.
    """
    target = 1 + (power - 1) * min(1.0, complexity / DETAILED)

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
