"""A model whose arithmetic is elementwise, so that no BLAS and no order of summation decides what it predicts."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from subjects import NoiseSchedule

SHAPE = (4, 4, 3)


class Toy:
    """Independent pixels, each a mixture of two Gaussians; a condition moves the centre.

    With xh = x / alpha, s = sigma / alpha and d = xh - c, pixels c +- m of variance v have the clean prediction
    D = c + (v d + s^2 m tanh(m d / (v + s^2))) / (v + s^2).

    Args:
        prediction_type: What it predicts.
        **schedule: Arguments of its noise schedule.
    """

    def __init__(self, prediction_type: str = "epsilon", **schedule: Any):
        self.prediction_type = prediction_type
        self.schedule = NoiseSchedule(**schedule)
        size = int(np.prod(SHAPE))
        self.m = mx.array(np.linspace(0.15, 0.6, size).reshape(SHAPE).astype(np.float32))
        self.v = mx.array(np.geomspace(0.05, 0.004, size).reshape(SHAPE).astype(np.float32))

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        """See `Denoiser`; a condition is (B, 1), a class from 0 on."""
        at = np.array(t, np.float64)
        alpha, sigma = (self._column(f(at)) for f in (self.schedule.alpha, self.schedule.sigma))
        s2 = (sigma / alpha) ** 2
        centre = 0.0 if condition is None else 0.08 * condition.astype(mx.float32).reshape(-1, 1, 1, 1)

        d = x.astype(mx.float32) / alpha - centre
        total = self.v + s2
        x0 = centre + (self.v * d + s2 * self.m * mx.tanh(self.m * d / total)) / total
        if self.prediction_type == "sample":
            return x0.astype(x.dtype)

        eps = (x - alpha * x0) / sigma
        return (eps if self.prediction_type == "epsilon" else alpha * eps - sigma * x0).astype(x.dtype)

    @staticmethod
    def _column(values: np.ndarray) -> mx.array:
        return mx.array(values.astype(np.float32).reshape(-1, 1, 1, 1))
