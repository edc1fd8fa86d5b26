"""Multistep solvers with fitted weights: each step's own linear combination of the state and the latest predictions.

Textbook multistep weights are exact for polynomials. A model's trajectories are not polynomials, but they are much
alike, so the weights that lead along them can be found by least squares: from the state that the solver itself has
reached, to the state of the reference at the next node. That takes `n` evaluations per image and no gradient. (With
learned instead of fitted weights: Shaul et al., 2024, "Bespoke non-stationary solvers".)

A step from noise level s to s' is x' = r xh + (1 - r) (D_0 + c_1 (D_0 - D_1) + ... + a D_0 + b (xh - D_0) / S), with
r = s' / s, S = sqrt(s^2 + 1 / 4) and D_j the clean prediction j steps ago. Without the corrections a, b, c it is the
first-order step (DDIM).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..diffusion.first_prediction import KnownFirst
from ..diffusion.schedule import NoiseSchedule
from ..grids.base import FixedGrid
from ..sampling.converged import paired_rmse
from ..sampling.rollout import InBatches, Rollout, finished
from ..solvers.base import Memory, Position, Solver, Step
from ..solvers.dpm_solver import DPMSolver
from ..solvers.fitted import DATA_VARIANCE, Fitted, levels_of, multistep_rows
from .reference import ReferenceTrajectories

HISTORY = 4  # K, predictions that a step combines
RIDGE = 1e-4  # where many noises are fitted on: keeps collinear predictions from fighting


@dataclass(frozen=True, eq=False)
class Solution:
    """A grid and the corrections of its steps.

    Attributes:
        timesteps: (n,) strictly decreasing from T - 1.
        corrections: (n, K + 1), see `multistep_rows`; None: DPM-Solver++(2M).
    """

    timesteps: np.ndarray
    corrections: np.ndarray | None = None

    def solver(self, process: NoiseSchedule) -> Solver:
        """What takes its steps; the images are not clipped."""
        if self.corrections is None:
            return DPMSolver()
        return Fitted(multistep_rows(levels_of(process, self.timesteps), self.corrections))


Evaluated = InBatches | KnownFirst  # what draws while weights are fitted


def begun(model: Evaluated, noise: np.ndarray, timesteps: np.ndarray, solver: Solver) -> Rollout:
    """(N, H, W, C) states xh at T - 1, at the beginning of a grid."""
    grid = FixedGrid.of(model.process, timesteps)
    return Rollout.begin(grid, solver, mx.array((grid.nodes[0].alpha * noise).astype(np.float32)))


def drawn(model: Evaluated, noise: np.ndarray, solution: Solution) -> np.ndarray:
    """(N, H, W, C) states xh at T - 1 -> (N, H, W, C) float64 images that a solution draws from them."""
    rollout = begun(model, noise, solution.timesteps, solution.solver(model.process))
    return np.array(finished(model, [rollout]), np.float64)


def errors(model: Evaluated, reference: ReferenceTrajectories, solution: Solution) -> np.ndarray:
    """(N,) RMSE of the images that a solution draws from the noises of the reference to the reference images."""
    return paired_rmse(drawn(model, reference.noise, solution), reference.images)


def fit_corrections(
    model: Evaluated,
    reference: ReferenceTrajectories,
    timesteps: np.ndarray,
    ridge: float = RIDGE,
) -> np.ndarray:
    """Fit the corrections of every step by least squares to the reference's states, one step after the other.

    Args:
        model: The model, with the conditions of the reference.
        reference: Where the steps should lead.
        timesteps: (n,) timesteps, strictly decreasing from T - 1.
        ridge: Added to the normal equations' diagonal, as a share of it, >= 0: shrinks corrections towards 0, and those
            of collinear predictions towards each other.

    Returns:
        (n, K + 1) corrections of K = `HISTORY` predictions; those of predictions that do not exist yet are 0.
    """
    fitting = _Fitting(reference, levels_of(model.process, timesteps), ridge)
    finished(model, [begun(model, reference.noise, timesteps, fitting)])
    return fitting.corrections


class _Fitting:
    """A solver that fits the corrections of each step when it is due, and takes the step with them.

    Args:
        reference: Where the steps should lead.
        levels: (n + 1,) noise levels of the nodes, and 0.
        ridge: See `fit_corrections`.

    Attributes:
        corrections: (n, K + 1) as far as they have been fitted.
    """

    def __init__(self, reference: ReferenceTrajectories, levels: np.ndarray, ridge: float):
        self.reference, self.levels, self.ridge = reference, levels, ridge
        self.corrections = np.zeros((len(levels) - 1, HISTORY + 1))

    def step(self, at: Position, memory: Memory) -> Step:
        """See `Solver`."""
        i, last = len(at.trail) - 1, at.then.clean
        pair, kept = self.levels[i : i + 2], (at.x0, *memory)
        state = np.array(at.x_t, np.float64) / at.now.alpha
        predictions = [np.array(x0, np.float64) for x0 in kept]

        newest, left = predictions[0], 1 - pair[1] / pair[0]
        columns = [newest, (state - newest) / np.sqrt(pair[0] ** 2 + DATA_VARIANCE)]
        columns += [newest - older for older in predictions[1:]]
        matrix = left * np.stack([column.ravel() for column in columns])

        target = self.reference.images if last else self.reference.at(pair[1])
        missing = target - _combined(self._row(i, pair), state, predictions)
        gram = matrix @ matrix.T
        gram += np.diag(self.ridge * np.diag(gram) + 1e-12)
        self.corrections[i, : len(columns)] = np.linalg.solve(gram, matrix @ missing.ravel())

        reached = at.then.alpha * _combined(self._row(i, pair), state, predictions)
        return Step(mx.array(reached.astype(np.float32)), 0.0, kept[: HISTORY - 1], len(kept))

    def _row(self, i: int, pair: np.ndarray) -> np.ndarray:
        return multistep_rows(pair, self.corrections[i : i + 1])[0]


def _combined(row: np.ndarray, state: np.ndarray, predictions: Sequence[np.ndarray]) -> np.ndarray:
    """The weighted sum of the state and of the predictions, newest first, as far as there are any."""
    result = row[0] * state
    for weight, x0 in zip(row[1:], predictions, strict=False):
        result = result + weight * x0
    return np.asarray(result)
