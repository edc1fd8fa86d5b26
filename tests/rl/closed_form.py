"""Images of independent Gaussian pixels: a model whose clean prediction is known, and that costs next to nothing."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from adaptive_diffusion.diffusion import GuidedModel
from adaptive_diffusion.diffusion.limits import unlimited
from adaptive_diffusion.diffusion.schedule import NoiseSchedule

SHAPE = (4, 4, 3)
STD = np.geomspace(0.01, 0.25, int(np.prod(SHAPE))).reshape(SHAPE)  # of each pixel


class GaussianDenoiser:
    """D = std^2 / (std^2 + s^2) x / alpha, s = sigma / alpha; counts its calls and the images in them."""

    def __init__(self) -> None:
        self.schedule = NoiseSchedule()
        self.calls = self.pictures = 0

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        self.calls, self.pictures = self.calls + 1, self.pictures + len(x)
        t = np.array(t, np.float64)
        alpha, sigma = (f(t).reshape(-1, 1, 1, 1) for f in (self.schedule.alpha, self.schedule.sigma))
        return mx.array((STD**2 / (STD**2 + (sigma / alpha) ** 2) / alpha).astype(np.float32)) * x


def gaussian(**more: object) -> GuidedModel:
    """The drawing of a new `GaussianDenoiser`."""
    return GuidedModel(GaussianDenoiser(), prediction_type="sample", limit=unlimited, state_shape=SHAPE, **more)
