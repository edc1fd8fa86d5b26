"""Published solvers, noise schedules, and the pipeline that draws with a model and a scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .noise_schedule import NoiseSchedule
    from .pipeline import DiffusionPipeline
    from .scheduler_base import SchedulerBase
    from .schedulers import DDIMScheduler, DDPMScheduler, DPMSolverScheduler

__all__ = [
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverScheduler",
    "DiffusionPipeline",
    "NoiseSchedule",
    "SchedulerBase",
]

_HOMES = {  # as the imports above say to type checkers
    "DDIMScheduler": "schedulers",
    "DDPMScheduler": "schedulers",
    "DPMSolverScheduler": "schedulers",
    "DiffusionPipeline": "pipeline",
    "NoiseSchedule": "noise_schedule",
    "SchedulerBase": "scheduler_base",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
