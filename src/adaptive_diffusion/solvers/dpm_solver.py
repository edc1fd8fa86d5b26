"""DPM-Solver++, multistep."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..diffusion.checks import check_choice, check_count
from .base import Memory, Position, Step
from .multistep import SOLVER_TYPES, multistep_weights

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
