"""Calibration on first use: what it costs here, and whether a run should pay for it."""

from __future__ import annotations

from dataclasses import dataclass

from ..diffusion.guided_model import GuidedModel
from ..sampling.timing import seconds_per_evaluation
from .recipe import CalibrationRecipe

TIMED = 4  # images of the batch that is timed
PATIENCE = 120.0  # seconds that a calibration may take where nobody asked for it


@dataclass(frozen=True)
class Estimate:
    """What a calibration and a run cost.

    Attributes:
        evaluations: Network evaluations of the calibration, each image counting.
        seconds: Of the calibration.
        run_seconds: Of the run that would use it.
    """

    evaluations: int
    seconds: float
    run_seconds: float

    @property
    def affordable(self) -> bool:
        """Whether the calibration takes less than `PATIENCE`, or less than the run itself."""
        return self.seconds < max(PATIENCE, self.run_seconds)


def estimate(model: GuidedModel, recipe: CalibrationRecipe, run_evaluations: int) -> Estimate:
    """The costs, by one evaluation of a small batch that is timed here.

    Args:
        model: What would be calibrated.
        recipe: How.
        run_evaluations: Of the run that would use it, each image counting.
    """
    seconds, evaluations = seconds_per_evaluation(model, TIMED), recipe.evaluations(model)
    return Estimate(evaluations, evaluations * seconds, run_evaluations * seconds)
