"""Calibrate any denoiser from Python, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_count
from ..diffusion.guidance import Guidance
from ..diffusion.guided_model import GuidedModel
from ..diffusion.limits import Clipped, unlimited
from ..diffusion.schedule import NoiseSchedule
from ..grids.calibrated_schedule import CalibratedSchedule
from ..io.progress import Progress
from ..types import Denoiser
from .identity import fingerprint_of, weights_hash
from .quick import MOST_STEPS, QuickCalibration


def calibrate_model(
    denoiser: Denoiser,
    state_shape: tuple[int, int, int],
    *,
    steps: int | Sequence[int] = 8,
    prediction_type: str = "epsilon",
    noise_schedule: Mapping[str, Any] | None = None,
    condition: mx.array | None = None,
    guidance_scale: float | Guidance = 1.0,
    bounded: bool = True,
    identity: str | None = None,
    progress: Callable[[int], None] | None = None,
    **settings: Any,
) -> CalibratedSchedule:
    """Find timesteps and solver weights for a denoiser, from at most 300 of its evaluations for a number up to 11.

    Args:
        denoiser: (x, t, condition) -> prediction, see `Denoiser`; e.g. a PyTorch module behind a small wrapper.
        state_shape: (H, W, C) of the images, or of their latents.
        steps: Number of steps to calibrate, or several.
        prediction_type: What it predicts: `epsilon`, `v_prediction` or `sample`.
        noise_schedule: Arguments of `NoiseSchedule`; None: its defaults.
        condition: (k, ...) what images are conditioned on, in turn; zeros are the null condition. None: nothing.
        guidance_scale: Weight of classifier-free guidance, >= 0, 1 is none; or `Guidance`, e.g. `Interval(2, low=-2)`.
        bounded: Whether clean predictions are images in [-1, 1], and are clipped; False for latents.
        identity: A name that tells this denoiser from others; None: the hash of its weights, if it shows them as a
            module of MLX or PyTorch, else "". What is no hash is not trusted alone: one more evaluation keeps a
            fingerprint of the denoiser, by which `AdaptiveScheduler` recognises it.
        progress: Called with the number of images after every evaluation of a batch; None: see `Progress`.
        **settings: See `QuickCalibration`.

    Returns:
        What `AdaptiveScheduler(calibration=...)` takes; `save_schedules` writes it to a file. At another size of states
        only its timesteps are used.

    Raises:
        ValueError: for a value out of range, guidance without a condition, or predictions of another shape.
        FloatingPointError: for predictions that are not finite.
    """
    model = GuidedModel(
        denoiser,
        NoiseSchedule(**(noise_schedule or {})),
        prediction_type,
        Clipped() if bounded else unlimited,
        guidance_scale,
        condition,
        state_shape,
        weights_hash(denoiser) if identity is None else identity,
    )
    if model.guidance_in_effect != model.guidance_scale:
        raise ValueError("guidance_scale guides nothing without a condition; give one, or leave guidance_scale out")
    numbers: Any = steps if np.iterable(steps) else (steps,)
    recipe = QuickCalibration(steps=[check_count("steps", n, 2, MOST_STEPS) for n in numbers], **settings)
    total = recipe.evaluations()
    with Progress("calibrating", total, unit="evaluation", quiet=progress is not None) as shown:
        *_, schedule = recipe.calibrate(model, progress or shown.update)
    return replace(schedule, fingerprint=fingerprint_of(model), state_shape=tuple(state_shape))
