"""The pipeline that draws with a model and a scheduler; the rest, by the names that it had first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from ..diffusion.schedule import NoiseSchedule as NoiseSchedule
    from ..schedulers.base import SchedulerBase as SchedulerBase
    from ..schedulers.classes import DDIMScheduler as DDIMScheduler
    from ..schedulers.classes import DDPMScheduler as DDPMScheduler
    from ..schedulers.classes import DPMSolverScheduler as DPMSolverScheduler
    from .pipeline import DiffusionPipeline as DiffusionPipeline

_HOMES = {  # as the imports above say to type checkers
    "DDIMScheduler": ".schedulers.classes",
    "DDPMScheduler": ".schedulers.classes",
    "DPMSolverScheduler": ".schedulers.classes",
    "DiffusionPipeline": "pipeline",
    "NoiseSchedule": ".diffusion.schedule",
    "SchedulerBase": ".schedulers.base",
}

__all__ = [*_HOMES]
__getattr__, __dir__ = lazy(__name__, _HOMES)
