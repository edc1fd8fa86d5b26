"""Adaptive diffusion sampling in MLX: schedulers, samplers and learned hyperparameters, measured.

Importing it gives MLX a fast BLAS on Linux (see `backend`). The public names load on first use, so that this costs
little more than importing MLX itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import moved
from ._version import __version__
from .backend.prepare import prepare
from .lazy import lazy

# Our own program says in one sentence that a backend is missing; Python imports this package before it gets to run.
# Its last arguments are those of the script or module, whose name stands before them.
_started = sys.orig_argv[-len(sys.argv) :][:1]
if not {Path(word).name for word in _started} & {"adaptive-diffusion", "adaptive_diffusion"}:
    prepare()
moved.install()

if TYPE_CHECKING:
    from .baseline.picture_models import PlainModel as PlainModel
    from .baseline.pipeline import DiffusionPipeline as DiffusionPipeline
    from .calibration.any_model import calibrate_model as calibrate_model
    from .diffusion.schedule import NoiseSchedule as NoiseSchedule
    from .io.pixels import to_pil as to_pil
    from .models.checkpoint import load_builtin_model as load_builtin_model
    from .models.checkpoint import load_model as load_model
    from .models.checkpoint import save_model as save_model
    from .models.diffusers import load_pipeline as load_pipeline
    from .models.unet import SimpleUNet as SimpleUNet
    from .models.unet import UNetConfig as UNetConfig
    from .sampling.standard import StandardSampler as StandardSampler
    from .schedulers.adaptive import AdaptiveScheduler as AdaptiveScheduler
    from .schedulers.classes import DDIMScheduler as DDIMScheduler
    from .schedulers.classes import DDPMScheduler as DDPMScheduler
    from .schedulers.classes import DPMSolverScheduler as DPMSolverScheduler
    from .schedulers.unipc_ipndm import IPNDMScheduler as IPNDMScheduler
    from .schedulers.unipc_ipndm import UniPCScheduler as UniPCScheduler
    from .types import SampleResult as SampleResult
    from .types import StepTrace as StepTrace

# Public name -> the module it lives in, relative to this package. The imports above say the same to type checkers.
_HOMES = {
    "AdaptiveScheduler": "schedulers.adaptive",
    "DDIMScheduler": "schedulers.classes",
    "DDPMScheduler": "schedulers.classes",
    "DPMSolverScheduler": "schedulers.classes",
    "DiffusionPipeline": "baseline.pipeline",
    "IPNDMScheduler": "schedulers.unipc_ipndm",
    "NoiseSchedule": "diffusion.schedule",
    "PlainModel": "baseline.picture_models",
    "SampleResult": "types",
    "SimpleUNet": "models.unet",
    "StandardSampler": "sampling.standard",
    "StepTrace": "types",
    "UNetConfig": "models.unet",
    "UniPCScheduler": "schedulers.unipc_ipndm",
    "calibrate_model": "calibration.any_model",
    "load_builtin_model": "models.checkpoint",
    "load_model": "models.checkpoint",
    "load_pipeline": "models.diffusers",
    "save_model": "models.checkpoint",
    "to_pil": "io.pixels",
}

__all__ = ["__version__", *_HOMES]
__getattr__, __dir__ = lazy(__name__, _HOMES)
