"""The published schedulers, at the place where the seed document names them."""

from ..schedulers.classes import DDIMScheduler, DDPMScheduler, DPMSolverScheduler

__all__ = ["DDIMScheduler", "DDPMScheduler", "DPMSolverScheduler"]
