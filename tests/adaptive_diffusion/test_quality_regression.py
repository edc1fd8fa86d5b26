"""What ships stays as near to the converged solution as its calibration found it, and nearer than classical solvers.

Two images of each domain, from noises that nothing was tuned on.
"""

from __future__ import annotations

import numpy as np
import pytest
from shipped import Shipped

from adaptive_diffusion.grids.spacings import LogSNRGrid, PowerGrid
from adaptive_diffusion.schedulers.classes import DPMSolverScheduler
from adaptive_diffusion.schedulers.unipc_ipndm import UniPCScheduler

DOMAINS = ("portraits", "landscapes", "abstract", "general")
EACH = 2
BEST_GRIDS = (PowerGrid(2), LogSNRGrid())  # of the benchmark, for both solvers and nearly all numbers of steps
SOLVERS = (DPMSolverScheduler, UniPCScheduler)


@pytest.fixture(scope="module")
def shipped() -> Shipped:
    return Shipped([name for name in DOMAINS for _ in range(EACH)])


@pytest.fixture(scope="module")
def calibrated(shipped) -> dict[int, np.ndarray]:
    """Mean errors of the calibrated schedules in each domain, by number of steps."""

    def error(steps: int, place: int) -> float:
        scheduler = shipped.adaptive(steps, DOMAINS[place])
        return float(shipped.errors(scheduler, slice(place * EACH, (place + 1) * EACH)).mean())

    return {steps: np.array([error(steps, place) for place in range(len(DOMAINS))]) for steps in (5, 8, 10)}


@pytest.mark.parametrize("steps", [5, 8, 10])
def test_calibrated_steps_keep_what_their_calibration_found(shipped, calibrated, steps):
    for name, error in zip(DOMAINS, calibrated[steps], strict=True):
        schedule = shipped.calibration(name)
        found = schedule.steps[steps].scores[schedule.steps[steps].rule]
        spread = found.standard_error * np.sqrt(schedule.held_out / EACH)  # of a mean of so few
        assert error < found.mean + 4 * spread, name


@pytest.mark.parametrize("steps", [5, 8, 10])
def test_calibrated_steps_are_nearer_than_classical_solvers_on_their_best_grid(shipped, calibrated, steps):
    classical = [
        shipped.errors(shipped.classical(kind, grid, steps)).reshape(-1, EACH).mean(axis=1)
        for kind in SOLVERS
        for grid in BEST_GRIDS
    ]
    assert (calibrated[steps] < 0.75 * np.min(classical, axis=0)).all()


def test_more_calibrated_steps_are_nearer(calibrated):
    assert (np.diff(list(calibrated.values()), axis=0) < 0).all()
