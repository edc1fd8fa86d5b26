"""DPM-Solver++, multistep.

With h the step in log-SNR and u in [0, h] the way along it, the exact step of the diffusion ODE (q = 1) or SDE
(q = 2) is

    x' = sigma' / sigma e^(-(q - 1) h) x + alpha' * integral of q e^(-q (h - u)) D(u) du  (+ noise if q = 2),

and a solver replaces the clean prediction D(u) by a polynomial through the latest predictions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..diffusion.checks import check_choice, check_count
from .base import Memory, Position, Step

SOLVER_TYPES = ("midpoint", "heun", "adams")
FEW = 15  # steps; with fewer, `lower_order_final` lowers the order of the last two


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++ (Lu et al., 2022b), in its ODE and SDE form. It remembers clean predictions, newest first.

    A step to a clean image is of first order, since the log-SNR there is infinite.

    Args:
        order: 1, 2 or 3: clean predictions that a step uses, as far as there are that many.
        kind: `midpoint` or `heun` as published, or `adams`: see `multistep_weights`.
        stochastic: Solve the SDE.
        lower_order_final: With fewer than 15 steps, take the last one at order 1 and the one before at order 2.
        euler_at_final: Take the last step at order 1.

    Raises:
        ValueError: for a value out of range.
    """

    order: int = 2
    kind: str = "midpoint"
    stochastic: bool = False
    lower_order_final: bool = True
    euler_at_final: bool = False

    def __post_init__(self) -> None:
        check_count("solver_order", self.order, 1, 3)
        check_choice("solver_type", self.kind, SOLVER_TYPES)

    def step(self, at: Position, memory: Memory) -> Step:
        """See `Solver`."""
        order, x0s = self._order(at, len(memory)), (at.x0, *memory)
        log_snrs = [node.log_snr for node in (*at.trail[-order:], at.then)]
        decay, weights = multistep_weights(log_snrs, self.kind, self.stochastic)

        mean = (at.then.sigma / at.now.sigma * decay) * at.x_t
        for weight, x0 in zip(weights, x0s, strict=False):
            mean = mean + (at.then.alpha * weight) * x0

        std = at.then.sigma * math.sqrt(1 - decay**2) if self.stochastic else 0.0
        return Step(mean, std, x0s[: self.order - 1], order)

    def _order(self, at: Position, remembered: int) -> int:
        """As configured, unless predictions are missing or the end is near."""
        if at.then.clean:
            return 1
        order = min(self.order, 1 + remembered)
        few = self.lower_order_final and at.steps is not None and at.steps < FEW
        if at.left == 1 and (few or self.euler_at_final):
            return 1
        return min(order, 2) if at.left == 2 and few else order


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
