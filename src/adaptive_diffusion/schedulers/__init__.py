"""Schedulers in the conventions of diffusers: a grid and a solver behind `set_timesteps` and `step`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from ..grids.calibrated import CalibratedGrid, find_grid, find_schedule
    from ..grids.calibrated_schedule import CalibratedSchedule
    from ..grids.grids import BlendedGrid, Grid, KarrasGrid, LogSNRGrid, PowerGrid
    from ..grids.schedule_file import load_schedules, save_schedules
    from .adaptive import AdaptiveScheduler
    from .unipc_ipndm import IPNDMScheduler, UniPCScheduler

__all__ = [
    "AdaptiveScheduler",
    "BlendedGrid",
    "CalibratedGrid",
    "CalibratedSchedule",
    "Grid",
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
    "BlendedGrid": ".grids.grids",
    "CalibratedGrid": ".grids.calibrated",
    "CalibratedSchedule": ".grids.calibrated_schedule",
    "Grid": ".grids.grids",
    "IPNDMScheduler": "unipc_ipndm",
    "KarrasGrid": ".grids.grids",
    "LogSNRGrid": ".grids.grids",
    "PowerGrid": ".grids.grids",
    "UniPCScheduler": "unipc_ipndm",
    "find_grid": ".grids.calibrated",
    "find_schedule": ".grids.calibrated",
    "load_schedules": ".grids.schedule_file",
    "save_schedules": ".grids.schedule_file",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
