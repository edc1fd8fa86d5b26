"""Multistep solvers on the power grid, whatever the number of steps."""

from __future__ import annotations

from dataclasses import dataclass

from ..grids.grids import PowerGrid
from ..schedulers.unipc_ipndm import IPNDMScheduler, UniPCScheduler


@dataclass(eq=False, repr=False)
class PowerUniPC(UniPCScheduler):
    """UniPC on the power grid.

    Args:
        progress_power: Power of the grid.
        ...: As for `UniPCScheduler`.
    """

    progress_power: float = 2.0

    @property
    def spacing(self) -> PowerGrid:
        """See `SchedulerBase`."""
        return PowerGrid(self.progress_power)


@dataclass(eq=False, repr=False)
class PowerIPNDM(IPNDMScheduler):
    """iPNDM on the power grid.

    Args:
        progress_power: Power of the grid.
        ...: As for `IPNDMScheduler`.
    """

    progress_power: float = 2.0

    @property
    def spacing(self) -> PowerGrid:
        """See `SchedulerBase`."""
        return PowerGrid(self.progress_power)
