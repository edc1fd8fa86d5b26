"""Schedulers in the conventions of diffusers: a grid and a solver behind `set_timesteps` and `step`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from ..grids.calibrated import CalibratedGrid as CalibratedGrid
    from ..grids.calibrated import find_grid as find_grid
    from ..grids.calibrated import find_schedule as find_schedule
    from ..grids.calibrated_schedule import CalibratedSchedule as CalibratedSchedule
    from ..grids.schedule_file import load_schedules as load_schedules
    from ..grids.schedule_file import save_schedules as save_schedules
    from ..grids.spacings import BlendedGrid as BlendedGrid
    from ..grids.spacings import KarrasGrid as KarrasGrid
    from ..grids.spacings import LogSNRGrid as LogSNRGrid
    from ..grids.spacings import PowerGrid as PowerGrid
    from .adaptive import AdaptiveScheduler as AdaptiveScheduler
    from .unipc_ipndm import IPNDMScheduler as IPNDMScheduler
    from .unipc_ipndm import UniPCScheduler as UniPCScheduler

_HOMES = {  # as the imports above say to type checkers
    "AdaptiveScheduler": "adaptive",
    "BlendedGrid": ".grids.spacings",
    "CalibratedGrid": ".grids.calibrated",
    "CalibratedSchedule": ".grids.calibrated_schedule",
    "IPNDMScheduler": "unipc_ipndm",
    "KarrasGrid": ".grids.spacings",
    "LogSNRGrid": ".grids.spacings",
    "PowerGrid": ".grids.spacings",
    "UniPCScheduler": "unipc_ipndm",
    "find_grid": ".grids.calibrated",
    "find_schedule": ".grids.calibrated",
    "load_schedules": ".grids.schedule_file",
    "save_schedules": ".grids.schedule_file",
}

__all__ = [*_HOMES]
__getattr__, __dir__ = lazy(__name__, _HOMES)
