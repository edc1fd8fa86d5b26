"""Schedulers in the conventions of diffusers: a grid and a solver behind `set_timesteps` and `step`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from ..grids.calibrated import CalibratedGrid, find_grid, find_schedule
    from ..grids.calibrated_schedule import CalibratedSchedule
    from ..grids.schedule_file import load_schedules, save_schedules
    from ..grids.spacings import BlendedGrid, KarrasGrid, LogSNRGrid, PowerGrid
    from .adaptive import AdaptiveScheduler
    from .unipc_ipndm import IPNDMScheduler, UniPCScheduler

__all__ = [
    "AdaptiveScheduler",
    "BlendedGrid",
    "CalibratedGrid",
    "CalibratedSchedule",
    "IPNDMScheduler",
    "KarrasGrid",
    "LogSNRGrid",
    "PowerGrid",
    "UniPCScheduler",
    "find_grid",
    "find_schedule",
    "load_schedules",
    "save_schedules",
]

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

__getattr__, __dir__ = lazy(__name__, _HOMES)
