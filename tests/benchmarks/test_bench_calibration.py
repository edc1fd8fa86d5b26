"""Distances of the calibration benchmark."""

from __future__ import annotations

import numpy as np
from tiny import tiny_model

from adaptive_diffusion.diffusion.conditions import conditions_of
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.grids.spacings import PowerGrid
from benchmarks.calibration import Distance
from benchmarks.common import classical_schedulers, scheduler_settings


def test_a_condition_that_all_images_share_reaches_every_batch() -> None:
    network = tiny_model()
    model = GuidedModel.from_model(network, conditions_of(network, "portraits", "official", "portraits"))
    _, scheduler = next(classical_schedulers(scheduler_settings(network), {"uniform": PowerGrid(1)}, 3))

    (rmse, perceptual), (whole, _) = (Distance(model, 3, seed=5, batch_size=size)(scheduler) for size in (2, 3))
    assert rmse.shape == perceptual.shape == (3,)
    np.testing.assert_allclose(rmse, whole, atol=1e-5)
