"""Multistep solvers on the power grid, whatever the number of steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..schedulers.grids import PowerGrid
from ..schedulers.solvers import IPNDMScheduler, UniPCScheduler


@dataclass(eq=False, repr=False)
class PowerUniPC(UniPCScheduler):
    """UniPC on the power grid.

    Args:
        progress_power: Power of the grid.
        ...: As for `UniPCScheduler`.
    """

    progress_power: float = 2.0

    def _grid(self, n: int) -> np.ndarray:
        return PowerGrid(self.progress_power)(self.schedule, n)


@dataclass(eq=False, repr=False)
class PowerIPNDM(IPNDMScheduler):
    """iPNDM on the power grid.

    Args:
        progress_power: Power of the grid.
        ...: As for `IPNDMScheduler`.
    """

    progress_power: float = 2.0

    def _grid(self, n: int) -> np.ndarray:
        return PowerGrid(self.progress_power)(self.schedule, n)
