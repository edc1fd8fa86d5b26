"""Learned schedules: node positions and solver weights together, for the least error of the images at the end.

The error of the clean images is minimised over some dozens of numbers by Gauss-Newton steps (Levenberg, 1944;
Marquardt, 1963). The Jacobian comes from finite differences: a correction of step k changes nothing before it, so each
column costs only the evaluations after it, and nothing is differentiated. LD3 (Tong et al., 2025) descends the same
objective, positions only, by back-propagation through the sampler.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..diffusion.evaluation import Denoised
from ..diffusion.schedule import NoiseSchedule
from ..grids.base import FixedGrid
from ..sampling.rollout import InBatches, Rollout, finished
from .fitting import Solution, begun
from .reference import ReferenceTrajectories

POSITION_STEP = 0.03  # finite difference of a node's log-SNR, in distances to its nearer neighbour
CORRECTION_STEP = 0.02  # finite difference of a correction
CLOSEST = 0.05  # of a mean step in log-SNR: nodes do not come nearer to each other
LEAST_GAIN = 0.01  # share of the held-out error that a step has to take off, or it is the last
DAMPINGS = (1e-3, 1e-2, 1e-1, 1.0)  # tried in turn until the error falls


def learn(
    model: InBatches,
    reference: ReferenceTrajectories,
    judge: Callable[[Solution], float],
    start: Solution,
    iterations: int = 3,
) -> Solution:
    """Improve a grid and its weights together, as long as other images profit.

    A few images with errors far beyond the others' decide the squares, so that steps may lead away from what suits most
    images: the error on images that nothing is learned on says when to stop (Prechelt, 1998).

    One iteration costs about (n - 1) + n (K - 1) columns of n / 2 evaluations per image, and n for each held-out one.

    Args:
        model: The model, with the conditions of the reference.
        reference: The images that are to be drawn; two dozen are enough.
        judge: The error of a solution on other images, which decides how many steps are taken.
        start: Where to begin: a grid with corrections, e.g. fitted ones.
        iterations: At most so many steps.

    Returns:
        The best by the held-out images, perhaps `start`.
    """
    if iterations == 0:
        return start

    best, error, at = start, judge(start), _Run(model, reference, start)
    for _ in range(iterations):
        found = _better(model, reference, at)
        if found is None or not (changed := judge(found.solution)) < error:
            break
        gain, error, best, at = 1 - changed / error, changed, found.solution, found
        if gain < LEAST_GAIN:
            break

    return best


class _Run:
    """A whole run of a solution, with everything that a perturbed run can begin from."""

    def __init__(self, model: InBatches, reference: ReferenceTrajectories, solution: Solution):
        self.solution = solution
        self._seen: list[tuple[Rollout, Denoised]] = []
        rollout = begun(model, reference.noise, solution.timesteps, solution.solver(model.process))
        self.images = np.array(finished(model, [rollout], self._note), np.float64)
        self.error = float(np.sqrt(np.mean((self.images - reference.images) ** 2)))

    def changed(self, model: InBatches, solution: Solution, step: int) -> np.ndarray:
        """The images of a solution that agrees with this one up to the evaluation of `step`."""
        before, denoised = self._seen[step]
        grid, solver = FixedGrid.of(model.process, solution.timesteps), solution.solver(model.process)
        other = before.go_on(grid, solver, before.memory)
        return np.array(finished(model, [other.step(denoised)]), np.float64)

    def _note(self, before: Rollout, denoised: Denoised, after: Rollout) -> list[Rollout]:
        self._seen.append((before, denoised))
        return [after]


def _better(model: InBatches, reference: ReferenceTrajectories, at: _Run) -> _Run | None:
    """The run after one Gauss-Newton step, or None if none takes the error down."""
    schedule, timesteps, corrections = model.process, at.solution.timesteps, at.solution.corrections
    assert corrections is not None
    n, width = corrections.shape
    log_snr = schedule.log_snr(timesteps)
    end = float(schedule.log_snr(0.0))
    columns = []
    for k in range(1, n):
        neighbours = log_snr[k] - log_snr[k - 1], (log_snr[k + 1] if k + 1 < n else end) - log_snr[k]
        step = -POSITION_STEP * max(min(neighbours), 1e-3)
        moved = log_snr.copy()
        moved[k] += step
        changed = Solution(_timesteps(schedule, timesteps, moved), corrections)
        columns.append((at.changed(model, changed, k - 1) - at.images) / step)

    # c_1 to c_(K - 1) of every step, as far as there are predictions
    places = [(k, j) for k in range(1, n) for j in range(2, min(k, width - 2) + 2)]
    for k, j in places:
        other = corrections.copy()
        other[k, j] += CORRECTION_STEP
        columns.append((at.changed(model, Solution(timesteps, other), k) - at.images) / CORRECTION_STEP)

    jacobian = np.stack([column.ravel() for column in columns])
    gram, slope = jacobian @ jacobian.T, jacobian @ (reference.images - at.images).ravel()
    for damping in DAMPINGS:
        change = np.linalg.solve(gram + np.diag(damping * np.diag(gram) + 1e-12), slope)
        moved, other = log_snr.copy(), corrections.copy()
        moved[1:] += change[: n - 1]
        for (k, j), value in zip(places, change[n - 1 :], strict=True):
            other[k, j] += value
        moved = np.minimum(moved, end)
        if np.diff(moved).min() < CLOSEST * (end - log_snr[0]) / n:
            continue
        found = _Run(model, reference, Solution(_timesteps(schedule, timesteps, moved), other))
        if found.error < at.error:
            return found

    return None


def _timesteps(schedule: NoiseSchedule, before: np.ndarray, log_snr: np.ndarray) -> np.ndarray:
    """Timesteps of moved nodes; the first one stays exactly where it is."""
    return np.append(before[0], schedule.timestep(log_snr[1:]))
