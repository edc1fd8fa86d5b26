"""Schedulers of the project's own: where to evaluate the model, composed with the solvers of `baseline`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .adaptive import AdaptiveScheduler
    from .calibrated import CalibratedGrid, find_grid, find_schedule
    from .calibrated_schedule import CalibratedSchedule
    from .grids import BlendedGrid, Grid, KarrasGrid, LogSNRGrid, PowerGrid
    from .schedule_file import load_schedules, save_schedules
    from .solvers import IPNDMScheduler, UniPCScheduler

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
    "BlendedGrid": "grids",
    "CalibratedGrid": "calibrated",
    "CalibratedSchedule": "calibrated_schedule",
    "Grid": "grids",
    "IPNDMScheduler": "solvers",
    "KarrasGrid": "grids",
    "LogSNRGrid": "grids",
    "PowerGrid": "grids",
    "UniPCScheduler": "solvers",
    "find_grid": "calibrated",
    "find_schedule": "calibrated",
    "load_schedules": "schedule_file",
    "save_schedules": "schedule_file",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
