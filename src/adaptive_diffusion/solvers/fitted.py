"""Steps with weights of their own, fitted or learned for a model."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..diffusion.limits import Limit, unlimited
from ..diffusion.node import Process
from .base import Memory, Position, Solver, Step
from .dpm_solver import DPMSolver

DATA_VARIANCE = 0.25  # of images in [-1, 1], roughly


@dataclass(frozen=True, eq=False)
class Fitted:
    """Each step is its own linear combination of the state and the latest clean predictions.

    In xh = x / alpha, step i leads to r_0 xh + r_1 D_0 + r_2 D_1 + ..., with row i of the weights and D_j the clean
    prediction j steps ago. The step to a clean image is kept in the range of the data.

    It remembers clean predictions, newest first. A run that does not begin at the first node has fewer than a row was
    fitted for; its steps are those of another solver, to the end: weights that set in later, on predictions of other
    steps than they were fitted to, were worse (docs/notes/tried.md).

    Args:
        rows: (n, K + 1) weights of n steps, K >= 3; `multistep_rows` makes them.
        limit: Keeps clean images in the range of the data.
        otherwise: Takes the steps of a run from the middle; it remembers one clean prediction, too few for a row.
    """

    rows: np.ndarray
    limit: Limit = unlimited
    otherwise: Solver = field(default_factory=DPMSolver)

    def step(self, at: Position, memory: Memory) -> Step:
        """See `Solver`."""
        index, most = len(at.trail) - 1, self.rows.shape[1] - 2
        if len(memory) != min(index, most):
            return self.otherwise.step(at, memory)

        row, x0s = self.rows[index], (at.x0, *memory)
        mean = (at.then.alpha / at.now.alpha * float(row[0])) * at.x_t
        for weight, x0 in zip(row[1:], x0s, strict=False):
            mean = mean + (at.then.alpha * float(weight)) * x0
        return Step(self.limit(mean) if at.then.clean else mean, 0.0, x0s[:most], len(x0s))


def levels_of(process: Process, timesteps: np.ndarray) -> np.ndarray:
    """(n + 1,) noise levels sigma / alpha of n timesteps, and 0 where the last step leads."""
    return np.append(np.exp(-process.log_snr(timesteps)), 0.0)


def multistep_rows(levels: np.ndarray, corrections: np.ndarray) -> np.ndarray:
    """The weights of every step.

    Args:
        levels: (n + 1,) noise levels, decreasing.
        corrections: (n, K + 1) for each step a, b, c_1, ..., c_(K - 1).

    Returns:
        (n, K + 1) weights of xh, D_0, ..., D_(K - 1): x' is their sum.
    """
    r = levels[1:] / levels[:-1]
    left = 1 - r
    a, b, c = corrections[:, 0], corrections[:, 1], corrections[:, 2:]
    carried = b * left / np.sqrt(levels[:-1] ** 2 + DATA_VARIANCE)
    rows = np.empty_like(corrections, dtype=np.float64)
    rows[:, 0] = r + carried
    rows[:, 1] = left * (1 + a + c.sum(axis=1)) - carried
    rows[:, 2:] = -left[:, None] * c
    return rows
