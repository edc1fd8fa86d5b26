"""The timestep spacings of diffusers, as rules."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..diffusion.checks import check_choice, check_count, check_number
from ..diffusion.schedule import NoiseSchedule
from .spacing import TIMESTEP_SPACINGS, spaced_timesteps


@dataclass(frozen=True)
class Spaced:
    """Timesteps equally spaced in t, see `spaced_timesteps`.

    Args:
        spacing: `leading`, `linspace` or `trailing`.
        offset: Added to the `leading` grid, timesteps, >= 0.
        open_end: Leave t = 0 out of `leading` and `linspace`.
        lowest_log_snr: Leave out the timesteps whose log-SNR is smaller.

    Raises:
        ValueError: for a value out of range.
    """

    spacing: str = "leading"
    offset: int = 0
    open_end: bool = False
    lowest_log_snr: float = -math.inf

    def __post_init__(self) -> None:
        check_choice("timestep_spacing", self.spacing, TIMESTEP_SPACINGS)
        check_count("steps_offset", self.offset, 0)
        if self.lowest_log_snr != -math.inf:
            check_number("lambda_min_clipped", self.lowest_log_snr)

    def __call__(self, process: NoiseSchedule, n: int, /) -> np.ndarray:
        """See `Spacing`."""
        usable = process.log_snr(np.arange(process.num_train_timesteps)) >= self.lowest_log_snr
        last = int(usable.sum())
        n = check_count("num_inference_steps", n, 1, last)
        return spaced_timesteps(self.spacing, n, last, self.offset, open_end=self.open_end)
