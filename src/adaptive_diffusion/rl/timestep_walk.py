"""A batch on its way from noise to images, one action a step: what `TimestepEnv` trains policies on."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from ..grids.base import GridMemory
from ..grids.policy import RESIDUAL, Residuals
from ..solvers.base import Memory, Position
from ..solvers.dpm_solver import DPMSolver

__all__ = ["RESIDUAL", "Route", "TimestepWalk"]

Route = Residuals  # what does not change while a batch is drawn
SOLVER = DPMSolver(lower_order_final=False)


class TimestepWalk:
    """Steps of DPM-Solver++(2M) along a route. By turns `see` a clean prediction, `observe`, and `go` on.

    Args:
        route: Where it begins, and what its actions are added to.

    Attributes:
        x0: (B, H, W, C) the latest clean prediction.
    """

    def __init__(self, route: Route):
        self.route = route
        self.x0: mx.array | None = None
        self._nodes = [route.begin]
        self._seen: GridMemory = ()
        self._memory: Memory = ()

    @property
    def trail(self) -> list[float]:
        """log-SNRs so far, of which the last is where the batch stands."""
        return [node.log_snr for node in self._nodes]

    @property
    def timestep(self) -> float:
        """Where the batch stands, in [0, T - 1]."""
        return self._nodes[-1].t

    def see(self, x0: mx.array) -> None:
        """Take in the clean prediction, (B, H, W, C), where the batch stands."""
        self.x0 = x0

    def observe(self) -> np.ndarray:
        """(7 + D,) float32, see `TimestepEnv`."""
        assert self.x0 is not None
        return self.route.observe(self._nodes, self.x0, self._seen)

    def stops(self, action: np.ndarray) -> bool:
        """Whether an action ends the walk, with the clean prediction there is."""
        return self.route.stops(action)

    def go(self, x_t: mx.array, action: np.ndarray) -> mx.array:
        """One step, of first order at the beginning, to where the action leads.

        Args:
            x_t: (B, H, W, C) where the batch stands.
            action: Its first number is added to the prior's logit.

        Returns:
            (B, H, W, C) the noisy images there.
        """
        assert self.x0 is not None
        then = self.route.node(self._nodes, action)
        step = SOLVER.step(Position(self._nodes, then, x_t, self.x0, self.x0), self._memory)  # it reads no eps
        self._seen, self._memory = self.route.remember(self.x0, self._seen), step.memory
        self._nodes = [*self._nodes, then]
        return step.mean

    def level(self) -> tuple[float, float]:
        """alpha and sigma where the batch stands."""
        return self._nodes[-1].alpha, self._nodes[-1].sigma
