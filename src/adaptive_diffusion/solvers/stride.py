"""Long strides to the clean image, for images that were stopped early."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx

from .base import Memory, Position, Step


@dataclass(frozen=True)
class Stride:
    """A step of second order along the ODE, taking the clean prediction to be linear in the noise level.

    In xh = x / alpha and s = sigma / alpha the exact step from s to s' is xh' = r xh + (1 - r) M, with r = s' / s and M
    the mean of the clean prediction D(q) over the way, weighted with 1 / q^2. If D is a line in q, M is its value at
    s s' log(s / s') / (s - s'). For small steps a line in s^2 or in log-SNR serves as well; over strides of the shipped
    model this one led nearest to the converged solution. Without an earlier prediction the step is of first order.

    A clean image is kept in [-1, 1], or in the range of its clean prediction if that is wider.

    It remembers the latest clean prediction.
    """

    def step(self, at: Position, memory: Memory) -> Step:
        """See `Solver`."""
        level, level_then = at.now.level, at.then.level
        r, mean = level_then / level, at.x0
        if memory:
            middle = level_then * math.log(1 / r) / (1 - r) if level_then > 0 else 0.0
            mean = at.x0 + (at.x0 - memory[0]) * ((level - middle) / (at.trail[-2].level - level))

        x = at.then.alpha * (r * (at.x_t / at.now.alpha) + (1 - r) * mean)
        return Step(kept_within(x, at.x0) if at.then.clean else x, 0.0, (at.x0,), 1 + len(memory))


def kept_within(images: mx.array, x0: mx.array) -> mx.array:
    """(B, H, W, C) images, each clipped to [-1, 1], or to the range of its clean prediction `x0` if that is wider."""
    bound = mx.maximum(mx.max(mx.abs(x0), axis=tuple(range(1, x0.ndim)), keepdims=True), 1.0)
    return mx.clip(images, -bound, bound)
