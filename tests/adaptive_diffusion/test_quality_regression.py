"""What ships stays as near to the converged solution as its calibration found it, and nearer than classical solvers.

One image of each domain, from noises that nothing was tuned on.
"""

from __future__ import annotations

import numpy as np
import pytest
from shipped import Shipped

from adaptive_diffusion.baseline.schedulers import DPMSolverScheduler
from adaptive_diffusion.schedulers.grids import LogSNRGrid, PowerGrid
from adaptive_diffusion.schedulers.solvers import UniPCScheduler

DOMAINS = ("portraits", "landscapes", "abstract", "general")
BEST_GRIDS = (PowerGrid(2), LogSNRGrid())  # of the benchmark, for both solvers and nearly all numbers of steps
SOLVERS = (DPMSolverScheduler, UniPCScheduler)


@pytest.fixture(scope="module")
def shipped() -> Shipped:
    return Shipped(DOMAINS)


@pytest.fixture(scope="module")
def calibrated(shipped) -> dict[int, list[float]]:
    """Errors of the calibrated schedules by number of steps, an image of each domain."""
    return {
        steps: [
            float(shipped.errors(shipped.adaptive(steps, name), slice(i, i + 1))[0]) for i, name in enumerate(DOMAINS)
        ]
        for steps in (5, 8, 10)
    }


@pytest.mark.parametrize("steps", [5, 8, 10])
def test_calibrated_steps_keep_what_their_calibration_found(shipped, calibrated, steps):
    for name, error in zip(DOMAINS, calibrated[steps], strict=True):
        schedule = shipped.calibration(name)
        found = schedule.steps[steps].scores[schedule.steps[steps].rule]
        deviation = found.standard_error * np.sqrt(schedule.held_out)  # of single images
        assert error < found.mean + 4 * deviation, name


@pytest.mark.parametrize("steps", [5, 8, 10])
def test_calibrated_steps_are_nearer_than_classical_solvers_on_their_best_grid(shipped, calibrated, steps):
    classical = [shipped.errors(shipped.classical(kind, grid, steps)) for kind in SOLVERS for grid in BEST_GRIDS]
    assert (calibrated[steps] < 0.75 * np.min(classical, axis=0)).all()


def test_more_calibrated_steps_are_nearer(calibrated):
    assert (np.diff(list(calibrated.values()), axis=0) < 0).all()
