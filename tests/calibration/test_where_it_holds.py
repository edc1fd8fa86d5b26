"""At another guidance, what ships draws no worse than what is drawn without a calibration."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_diffusion.calibration.reference import record
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.sampling.converged import paired_rmse
from adaptive_diffusion.sampling.rollout import InBatches
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler


@pytest.mark.parametrize("guidance", [1, 3, 5, 7.5])
@pytest.mark.parametrize("domain", ["landscapes", "abstract"])
def test_what_ships_is_no_worse_than_no_calibration_at_any_guidance(domain, guidance):
    network = load_builtin_model()
    model = GuidedModel.from_model(network, network.condition(domain, None, domain), guidance, domain=domain)
    x_T = model.noise(606, 8)
    reference = record(InBatches(model), x_T, nodes=32)
    shipped = find_schedule(None, network.identity, domain, guidance)

    def errors(calibration):
        scheduler = AdaptiveScheduler(num_inference_steps=5, calibration=calibration, **settings)
        images = np.array(StandardSampler(scheduler).run(model, x_T).images)
        return paired_rmse(images, reference.images)

    settings = {"prediction_type": network.metadata["prediction_type"], **network.metadata["noise_schedule"]}
    worse = errors(shipped) - errors(None)
    assert worse.mean() <= 2 * worse.std(ddof=1) / np.sqrt(len(worse))
