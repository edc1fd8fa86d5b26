"""Weights of the exponential multistep solvers (DPM-Solver++), as plain numbers.

With h the step in log-SNR and u in [0, h] the way along it, the exact step of the diffusion ODE (q = 1) or SDE
(q = 2) is

    x' = sigma' / sigma e^(-(q - 1) h) x + alpha' * integral of q e^(-q (h - u)) D(u) du  (+ noise if q = 2),

and a solver replaces the clean prediction D(u) by a polynomial through the latest predictions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

SOLVER_TYPES = ("midpoint", "heun", "adams")


def multistep_weights(
    log_snrs: Sequence[float], solver_type: str = "midpoint", stochastic: bool = False
) -> tuple[float, list[float]]:
    """Weights of one step.

    Args:
        log_snrs: k + 1 increasing log-SNRs for order k, 1 to 3: those of the predictions, oldest first, the newest
            one being where the step begins, and that of the target, which may be infinite at order 1.
        solver_type: At order 2, `midpoint` or `heun` (the exact integral of the line). At order 3, both are the
            published DPM-Solver++(3M), which has half the weight of the quadratic term and hence converges with
            order 2, though often with a smaller error; `adams` takes the exact integrals at orders 2 and 3
            (exponential Adams-Bashforth) and converges with order 3.
        stochastic: For the SDE.

    Returns:
        decay: e^(-(q - 1) h). The next sample is sigma' / sigma * decay * x + alpha' * sum_i w_i D_i, for the SDE
            plus sigma' sqrt(1 - decay^2) times standard normal noise.
        weights: w_i, newest prediction first, perhaps fewer than k; they sum to 1 - e^(-q h).
    """
    order = len(log_snrs) - 1
    q = 2 if stochastic else 1
    h = log_snrs[-1] - log_snrs[-2]
    decay = math.exp(-h) if stochastic else 1.0
    moment_0 = -math.expm1(-q * h)
    if order == 1:
        return decay, [moment_0]
    h_0 = log_snrs[-2] - log_snrs[-3]
    if h_0 <= 0:  # float64 no longer tells the two timesteps apart: the older one adds nothing
        return decay, [moment_0]
    moment_1 = h - moment_0 / q
    slope = moment_0 * h / 2 if order == 2 and solver_type == "midpoint" else moment_1
    weights = [moment_0 + slope / h_0, -slope / h_0]
    if order == 2:
        return decay, weights
    h_1 = log_snrs[-3] - log_snrs[-4]
    if h_1 <= 0:
        return decay, weights
    # Newton's form of the quadratic: D_0 + u g_0 + u (u + h_0) c, with g_0 = (D_0 - D_1) / h_0 and
    # c = (g_0 - g_1) / (h_0 + h_1)
    moment_2 = h * h - 2 / q * moment_1
    curvature = (moment_2 * (1.0 if solver_type == "adams" else 0.5) + moment_1 * h_0) / (h_0 + h_1)
    return decay, [
        weights[0] + curvature / h_0,
        weights[1] - curvature / h_0 - curvature / h_1,
        curvature / h_1,
    ]
