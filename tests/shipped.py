"""The shipped model on noises that nothing was tuned on, and what is drawn from them by any scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import mlx.core as mx
import numpy as np

from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.grids.base import Spacing
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.sampling.converged import converged_pictures, paired_rmse
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.base import SchedulerBase

SEED = 314_159


class Shipped:
    """The model with its own guidance, and fixed noises.

    Args:
        domains: Domain of each image.

    Attributes:
        evaluations: Images that the network was asked about so far.
    """

    def __init__(self, domains: Sequence[str]):
        self.model = load_builtin_model()
        self.domains, self.guidance, self.evaluations = domains, self.model.metadata["guidance_scale"], 0
        self.network = GuidedModel.from_model(self.model, (), self.guidance)
        self.settings = {
            "prediction_type": self.model.metadata["prediction_type"],
            "clip_sample": True,
            **self.model.metadata["noise_schedule"],
        }
        self.x_T = normal(image_keys(SEED, range(len(domains))), self.model.state_shape)
        self.condition = mx.array([self.model.condition(name, None, name) for name in domains], dtype=mx.int32)

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        self.evaluations += len(x)
        return self.network(x, t, condition)

    @cached_property
    def converged(self) -> np.ndarray:
        """Where the model leads from the noises: 64 steps of iPNDM."""
        model = self.network.with_condition(self.condition)
        return converged_pictures(model, self.x_T, most_steps=64).finer

    def calibration(self, domain: str) -> CalibratedSchedule:
        """What was calibrated for a domain."""
        found = find_schedule(None, self.model.identity, domain, self.guidance)
        assert found is not None
        return found

    def adaptive(self, steps: int, domain: str | None = None, **settings: object) -> AdaptiveScheduler:
        """The adaptive scheduler, calibrated for a domain; None: the power grid."""
        calibration = None if domain is None else self.calibration(domain)
        given = {"calibration": calibration, "num_inference_steps": steps, **self.settings, **settings}
        return AdaptiveScheduler(**given)

    def classical(self, kind: Callable[..., SchedulerBase], grid: Spacing, steps: int) -> SchedulerBase:
        """A solver on a grid."""
        scheduler = kind(**self.settings)
        scheduler.set_timesteps(timesteps=grid(scheduler.schedule, steps))
        return scheduler

    def errors(self, scheduler: SchedulerBase, some: slice = slice(None)) -> np.ndarray:
        """(N,) RMSE, in [-1, 1], to the converged solution, of what a scheduler draws from some of the noises."""
        drawn = StandardSampler(scheduler).run(self, self.x_T[some], condition=self.condition[some]).images
        return paired_rmse(np.clip(np.array(drawn), -1, 1), np.clip(self.converged[some], -1, 1))
