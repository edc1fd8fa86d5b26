"""The timestep grids of diffusers, in float64 and strictly decreasing for every number of steps.

diffusers rounds its grids to integers; so do these, unless rounding would merge two timesteps (close to one step per
training timestep), which costs a step and makes a multistep solver divide by zero.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from ..diffusion.checks import check_choice, check_count, check_number
from ..diffusion.schedule import NoiseSchedule

TIMESTEP_SPACINGS = ("leading", "linspace", "trailing")


@dataclass(frozen=True)
class Spaced:
    """Timesteps equally spaced in t (Lin et al., 2024, table 2).

    Args:
        spacing: `leading` (multiples of `last // n`, plus the offset), `linspace` (from `last - 1` to 0) or `trailing`
            (back from `last - 1` in strides of `last / n`); `last` is the number of usable training timesteps.
        offset: Added to the `leading` grid, timesteps, >= 0.
        open_end: Leave t = 0 out of `leading` and `linspace`, as DPM-Solver does and DDPM and DDIM do not.
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
        """See `Spacing`; raises ValueError also for an offset that pushes the grid past `last - 1`."""
        usable = process.log_snr(np.arange(process.num_train_timesteps)) >= self.lowest_log_snr
        last = int(usable.sum())
        n = check_count("num_inference_steps", n, 1, last)

        skip, shift = int(self.open_end), 0
        grid: np.ndarray
        if self.spacing == "linspace":
            # a single step starts where the noise is, at last - 1; diffusers evaluates it at t = 0
            grid = np.linspace(0, last - 1, n + skip)[::-1][:n] if n + skip > 1 else np.array([last - 1.0])
        elif self.spacing == "trailing":
            grid, shift = np.arange(last, 0, -last / n)[:n], 1  # rounded before 1 is taken off
        else:
            stride = last // (n + skip) or (last - 1) / n
            grid = (np.arange(skip, n + skip) * stride)[::-1] + float(self.offset)
            if grid[0] > last - 1:
                raise ValueError(
                    f"steps_offset {self.offset} with {n} leading steps starts at timestep {grid[0]:g}, past the last "
                    f"one, {last - 1}: use fewer steps or a smaller offset"
                )
            if grid[0] == 0:
                warnings.warn(
                    "timestep_spacing='leading' with 1 step evaluates the model at t = 0 only, where it removes no "
                    "noise; use timestep_spacing='trailing'",
                    stacklevel=4,  # whoever set the timesteps
                )

        rounded = np.round(grid)
        return (rounded if np.all(np.diff(rounded) < 0) else grid) - shift
