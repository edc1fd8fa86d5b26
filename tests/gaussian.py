"""Gaussian data N(mean, std^2): the one model whose clean prediction and ODE solution are known in closed form.

With s = sigma / alpha and xh = x / alpha: D = mean + std^2 / (std^2 + s^2) (xh - mean), and along the ODE
(xh - mean) / sqrt(std^2 + s^2) is constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

STD = 0.5


def predict(scheduler: Any, t: float, x: np.ndarray, std: Any = STD, mean: float = 0.0) -> np.ndarray:
    """The exact prediction at x_t, of the type that the scheduler expects."""
    alpha, sigma = scheduler.schedule.alpha(t), scheduler.schedule.sigma(t)
    x0 = mean + std**2 / (std**2 + (sigma / alpha) ** 2) * (x / alpha - mean)
    eps = (x - alpha * x0) / sigma
    return {"sample": x0, "epsilon": eps, "v_prediction": alpha * eps - sigma * x0}[scheduler.prediction_type]


def run(
    scheduler: Any,
    x: np.ndarray,
    noise: Callable[[int], np.ndarray] | None = None,
    dtype: mx.Dtype = mx.float32,
    **data: Any,
) -> np.ndarray:
    """Sample from x_T with the exact model; `noise(i)` is what step i injects."""
    with mx.stream(mx.cpu):  # float64 exists on the CPU only
        for i, t in enumerate(scheduler.timesteps):
            injected = None if noise is None else mx.array(noise(i), dtype)
            prediction = mx.array(predict(scheduler, t, x, **data), dtype)
            x = np.array(scheduler.step(prediction, t, mx.array(x, dtype), noise=injected))
    return x


def ode_solution(scheduler: Any, x: np.ndarray, t_end: float | None, std: Any = STD, mean: float = 0.0) -> np.ndarray:
    """Where the ODE leads from x at the first timestep: to `t_end`, or to the clean image."""

    def level(t: float) -> tuple[float, float]:
        return float(scheduler.schedule.alpha(t)), float(scheduler.schedule.sigma(t))

    alpha, sigma = level(scheduler.timesteps[0])
    alpha_end, sigma_end = (1.0, 0.0) if t_end is None else level(t_end)
    scale = np.sqrt((std**2 + (sigma_end / alpha_end) ** 2) / (std**2 + (sigma / alpha) ** 2))
    return alpha_end * (mean + (x / alpha - mean) * scale)


def output_std(scheduler: Any) -> float:
    """Standard deviation of the samples, exactly: steps are linear, so one basis vector per source of noise does."""
    n = len(scheduler)
    basis = np.eye(n + 1).reshape(n + 1, n + 1, 1, 1, 1)
    return float(np.linalg.norm(run(scheduler, basis[0], lambda i: basis[i + 1])))
