"""Weights of calibrated steps whose first prediction is stored, and how they are judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..diffusion.first_prediction import FirstPrediction, KnownFirst
from ..grids.calibrated_schedule import CalibratedSteps, StoredFirst
from ..sampling.rollout import InBatches
from .choosing import rows_of, score_of
from .fitting import Solution, errors, fit_corrections
from .reference import ReferenceTrajectories


def with_stored(
    model: InBatches,
    first: FirstPrediction,
    reference: ReferenceTrajectories,
    unseen: ReferenceTrajectories,
    steps: CalibratedSteps,
) -> CalibratedSteps:
    """Calibrated steps that also know what they are worth where the first prediction is stored.

    Rivals are the weights as they are, if there are any, and weights that are fitted on the same timesteps with the
    first prediction known. The better ones on the held-out noises are kept; `CalibratedSchedule.with_stored_first`
    decides whether they are used. This takes n - 1 evaluations for each image of `reference`, and twice as many for
    each one of `unseen`.

    Args:
        model: The model, with the condition of the references.
        first: What it predicts at the first timestep, see `first_prediction`.
        reference: Where weights are fitted.
        unseen: Trajectories from other noises, >= 2, which judge; those that judged the steps.
        steps: What was calibrated for some number of steps.
    """
    known, timesteps = KnownFirst(model, first), np.array(steps.timesteps)
    rivals = [fit_corrections(known, reference, timesteps)]
    if steps.corrections is not None:
        rivals.append(np.array(steps.corrections))

    found = [errors(known, unseen, Solution(timesteps, rows)) for rows in rivals]
    best = int(np.argmin([error.mean() for error in found]))
    return replace(steps, stored=StoredFirst(rows_of(rivals[best]), score_of(found[best])))
