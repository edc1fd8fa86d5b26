"""Actions for guidance: its weight and the interval of noise levels that it holds in, around a prior."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..diffusion.guidance import Guidance
from ..diffusion.guided_model import GuidedModel
from ..diffusion.schedule import NoiseSchedule
from ..schedulers.configuration import Configuration
from .knobs import DerivedKnobs, Knobs, in_steps

WEIGHT_STEP, END_STEP = 0.1, 0.25  # END_STEP in log-SNR
NEAR = 1e-5  # log-SNR, within which ends are the same
LATEST_BEGINNING, EARLIEST_END = 0.0, -1.0  # log-SNR that the ends of the interval move to at most


@dataclass(frozen=True)
class GuidanceKnobs(DerivedKnobs):
    """Three actions for the weight and the two ends of the interval of guidance, before those of other knobs.

    The weight goes from 1, which is none, to twice as far above it, or 2 where that is more; the interval begins
    between the first noise level and log-SNR 0, and ends between log-SNR -1 and the last noise level. Weights differ
    from the prior's by multiples of 0.1, ends by multiples of 0.25, so that what was measured once is met again.

    Args:
        others: Knobs for the rest.
        weight: The model's own guidance, at all noise levels.
        process: The noise process of the model.
    """

    weight: float
    process: NoiseSchedule

    @property
    def width(self) -> int:
        """See `Knobs`."""
        return 3 + self.others.width

    def configuration(self, action: np.ndarray) -> Configuration:
        """See `Knobs`."""
        return replace(self.others.configuration(action[3:]), **self._guidance(*action[:3]))

    def _guidance(self, weighs: float, begins: float, ends: float) -> dict[str, Any]:
        prior = self.prior
        first, last = self.process.log_snr([self.process.num_train_timesteps - 1, 0]).tolist()
        own = self.weight if prior.guidance_weight is None else prior.guidance_weight
        low_before = first if prior.guidance_low is None else max(prior.guidance_low, first)
        high_before = last if prior.guidance_high is None else min(prior.guidance_high, last)

        weight: float | None = in_steps(weighs, 1.0, own, max(2 * own - 1, 2.0), WEIGHT_STEP)
        low = in_steps(begins, first, low_before, LATEST_BEGINNING, END_STEP)
        high = in_steps(ends, EARLIEST_END, high_before, last, END_STEP)
        if (low, high) != (low_before, high_before):
            high = max(high, low + END_STEP)

        # one way of saying what is the same
        open_low = None if low <= first + NEAR else low
        open_high = None if high >= last - NEAR else high
        if weight == 1:
            open_low = open_high = None
        if weight == self.weight and (open_low, open_high) == (None, None):
            weight = None
        return {"guidance_weight": weight, "guidance_low": open_low, "guidance_high": open_high}


def with_guidance_knobs(knobs: Knobs, drawing: GuidedModel) -> Knobs:
    """The knobs, with those of guidance before them where the drawing has constant guidance."""
    scale = drawing.guidance_scale
    if drawing.condition is None or isinstance(scale, Guidance):
        return knobs
    return GuidanceKnobs(knobs, scale, drawing.process)
