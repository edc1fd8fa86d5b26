"""Calibration on first use: what it costs here, and whether a run should pay for it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..diffusion.guided_model import GuidedModel
from ..diffusion.node import node_at
from .store import Recipe

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
        """Whether the calibration takes less than two minutes, or less than the run itself."""
        return self.seconds < max(PATIENCE, self.run_seconds)


def estimate(model: GuidedModel, recipe: Recipe, run_evaluations: int) -> Estimate:
    """Time one evaluation, after one that compiles the network; both are of one image.

    Args:
        model: What would be calibrated, with at least one condition, or none.
        recipe: How.
        run_evaluations: Of the run that would use it, each image counting.
    """
    one = model.with_condition(None if model.condition is None else model.condition[:1])
    noise, node = one.noise(0, 1), node_at(model.process, model.process.num_train_timesteps - 1)

    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        mx.eval(one.denoise(noise, node, np.zeros(1, int)).x0)
        seconds = time.perf_counter() - start

    evaluations = recipe.evaluations()
    return Estimate(evaluations, evaluations * seconds, run_evaluations * seconds)
