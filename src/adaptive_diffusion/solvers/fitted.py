"""Steps with weights of their own, fitted or learned for a model."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..diffusion.limits import Limit, unlimited
from .base import Memory, Position, Solver, Step
from .dpm_solver import DPMSolver


@dataclass(frozen=True, eq=False)
class Fitted:
    """Each step is its own linear combination of the state and the latest clean predictions.

    In xh = x / alpha, step i leads to r_0 xh + r_1 D_0 + r_2 D_1 + ..., with row i of the weights and D_j the clean
    prediction j steps ago. The step to a clean image is kept in the range of the data.

    It remembers clean predictions, newest first. A run that does not begin at the first node has fewer than a row was
    fitted for; its steps are those of another solver until there are enough.

    Args:
        rows: (n, K + 1) weights of n steps, K >= 2; `calibration.multistep_rows` makes them.
        limit: Keeps clean images in the range of the data.
        otherwise: Takes the steps that lack predictions; it remembers clean predictions too.
    """

    rows: np.ndarray
    limit: Limit = unlimited
    otherwise: Solver = field(default_factory=DPMSolver)

    def step(self, at: Position, memory: Memory) -> Step:
        """See `Solver`."""
        index, most = len(at.trail) - 1, self.rows.shape[1] - 2
        x0s = (at.x0, *memory)
        if len(memory) != min(index, most):
            return self.otherwise.step(at, memory)._replace(memory=x0s[:most])

        row = self.rows[index]
        mean = (at.then.alpha / at.now.alpha * float(row[0])) * at.x_t
        for weight, x0 in zip(row[1:], x0s, strict=False):
            mean = mean + (at.then.alpha * float(weight)) * x0
        return Step(self.limit(mean) if at.then.clean else mean, 0.0, x0s[:most], len(x0s))
