"""The model and the scheduler of a `DiffusionPipeline`, by what its user gives."""

from __future__ import annotations

import logging
from typing import Any

from ..diffusion.guided_model import GuidedModel
from ..models.checkpoint import load_builtin_model
from ..models.unet import SimpleUNet, UNetConfig
from ..program import command
from ..schedulers.adaptive import AdaptiveScheduler
from ..schedulers.classes import DDIMScheduler, DDPMScheduler, DPMSolverScheduler
from ..schedulers.core import SchedulerCore
from ..schedulers.unipc_ipndm import IPNDMScheduler, UniPCScheduler
from ..spelling import closest

log = logging.getLogger(__name__)


def model_of(given: Any, in_channels: int) -> Any:
    """A model as it is, if it can be one; None: the shipped one, or an untrained one of other channels than 3.

    Raises:
        ValueError: for a scheduler or a `GuidedModel` instead of the model, or what cannot be called.
    """
    if given is None:
        return _default_model(in_channels)
    if isinstance(given, str) or hasattr(given, "set_timesteps"):
        name = repr(given) if isinstance(given, str) else f"{type(given).__name__}(...)"
        raise ValueError(f"the first argument is the model; write DiffusionPipeline(scheduler={name:.60})")
    if isinstance(given, GuidedModel):
        raise ValueError(
            "a pipeline guides its model itself: give it that of the GuidedModel, DiffusionPipeline(guided.network), "
            "and guidance_scale to generate"
        )
    if isinstance(given, type) or not callable(given):
        raise ValueError(f"model must be a network that can be called, or None for the shipped one, got {given!r:.80}")
    return given


def scheduler_of(given: Any) -> SchedulerCore:
    """A scheduler, by its name or as it is.

    Raises:
        ValueError: for an unknown name, a class instead of an object, or what is no scheduler.
    """
    if isinstance(given, str):
        return _named_scheduler(given)
    if isinstance(given, type):
        raise ValueError(f"scheduler must be an object, got the class {given.__name__}; write {given.__name__}()")
    if not isinstance(given, SchedulerCore):
        raise ValueError(f"scheduler must be a name or a scheduler, such as a SchedulerBase, got {given!r:.80}")
    return given


def _default_model(in_channels: int) -> SimpleUNet:
    if in_channels == 3:
        return load_builtin_model()
    log.warning(
        "no trained model for %d channels ships with the project: this SimpleUNet is untrained and draws noise; "
        "train one with %s task=model",
        *(in_channels, command("train")),
    )
    return SimpleUNet(UNetConfig(in_channels=in_channels))


def _named_scheduler(name: str) -> SchedulerCore:
    """A scheduler by name: it clips, and those of first order begin where the noise is, which few steps need."""
    trailing: dict[str, Any] = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler, "dpm_solver": DPMSolverScheduler}
    others: dict[str, Any] = {"unipc": UniPCScheduler, "ipndm": IPNDMScheduler, "adaptive": AdaptiveScheduler}
    key = name.replace("-", "_")
    scheduler: SchedulerCore
    if key in trailing:
        scheduler = trailing[key](timestep_spacing="trailing", clip_sample=True)
    elif key in others:
        scheduler = others[key](clip_sample=True)
    else:
        known = [*trailing, *others]
        meant = f"; did you mean {found!r}?" if (found := closest(key, known)) else ""
        raise ValueError(f"scheduler must be one of {', '.join(known)} or a scheduler object, got {name!r}{meant}")

    return scheduler
