"""Recipes of `AdaptiveScheduler`: which solver goes with which timesteps, and where these come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import numpy as np

from ..diffusion.limits import Limit
from ..diffusion.schedule import NoiseSchedule
from ..errors import plainly
from ..grids.calibrated import CalibratedGrid
from ..grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, schedule_from
from ..grids.candidates import in_words
from ..solvers.base import Solver
from ..solvers.dpm_solver import DPMSolver
from ..solvers.fitted import Fitted, levels_of, multistep_rows


class LeftOut(Enum):
    """An argument that was left out, where None means something else."""

    LEFT_OUT = "left out"


LEFT_OUT: Final = LeftOut.LEFT_OUT


@dataclass(frozen=True)
class Recipe:
    """How a run is drawn.

    Attributes:
        origin: Where its timesteps come from, in a few words.
        solver: How a step is taken, before it is checked.
        power: Of the grid; None for a calibrated grid or the caller's timesteps.
        rule: What made the calibrated steps, `resampled` for a number of steps that was not calibrated; None for other
            timesteps.
    """

    origin: str
    solver: Solver = field(default_factory=DPMSolver)
    power: float | None = None
    rule: str | None = None


def calibrated_steps(
    calibration: CalibratedSchedule,
    process: NoiseSchedule,
    timesteps: np.ndarray,
    limit: Limit,
    stored: CalibratedSteps | None = None,
) -> Recipe:
    """Calibrated timesteps, with their weights where this number of steps was calibrated.

    Args:
        calibration: The steps.
        process: The noise process of the model.
        timesteps: (n,) as `CalibratedGrid` spaces them.
        limit: Keeps clean images in the range of the data.
        stored: The steps with the weights to take where the first prediction is stored; None: it is evaluated.
    """
    n = len(timesteps)
    known = calibration.used(n) if stored is None else stored
    if known is None:
        nearest = CalibratedGrid(calibration).nearest(n)
        return Recipe(f"resampled from {nearest} steps {calibration}", rule="resampled")

    solver: Solver = DPMSolver()
    if known.corrections is not None:
        rows = multistep_rows(levels_of(process, timesteps), np.array(known.corrections))
        solver = Fitted(rows, limit, solver)

    told = "" if stored is None else "first evaluation stored, "
    found = in_words(known.rule, weights=known.corrections is not None)
    return Recipe(f"{told}{calibration}: {found}", solver, rule=known.rule)


def checked_calibration(given: Any) -> CalibratedSchedule | LeftOut | None:
    """The calibration that a constructor was given, if it is one."""
    if isinstance(given, Mapping):
        try:
            given = schedule_from(given)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"calibration is no calibrated schedule: {plainly(error)}") from None
    if not isinstance(given, CalibratedSchedule | LeftOut | None):
        raise ValueError(f"calibration must be a calibrated schedule, or None for a power grid, got {given!r}")
    return given
