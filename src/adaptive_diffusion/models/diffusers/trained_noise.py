"""The noise schedule of a pipeline's training, from its `scheduler_config.json`.

All schedulers of diffusers for variance-preserving models describe the same forward process, so every such scheduler
will do. They differ in the reverse process, which is a choice of the run here, not of the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...diffusion.schedule import BETA_SCHEDULES, PREDICTION_TYPES, SCHEDULE_ARGUMENTS, NoiseSchedule
from ...errors import UnusableFile, plainly
from ...io.files import read_json

NAME = "scheduler_config.json"

_COMMON: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
    "prediction_type": "epsilon",
}
_KARRAS = {**_COMMON, "beta_start": 0.00085, "beta_end": 0.012}
_DISTILLED = {**_KARRAS, "beta_schedule": "scaled_linear"}

# The defaults of each supported class.
CLASSES: dict[str, dict[str, Any]] = {
    "DDPMScheduler": _COMMON,
    "DDPMParallelScheduler": _COMMON,
    "DDIMScheduler": _COMMON,
    "DDIMParallelScheduler": _COMMON,
    "DDIMInverseScheduler": _COMMON,
    "PNDMScheduler": _COMMON,
    "LMSDiscreteScheduler": _COMMON,
    "EulerDiscreteScheduler": _COMMON,
    "EulerAncestralDiscreteScheduler": _COMMON,
    "HeunDiscreteScheduler": _KARRAS,
    "KDPM2DiscreteScheduler": _KARRAS,
    "KDPM2AncestralDiscreteScheduler": _KARRAS,
    "DPMSolverMultistepScheduler": _COMMON,
    "DPMSolverMultistepInverseScheduler": _COMMON,
    "DPMSolverSinglestepScheduler": _COMMON,
    "DPMSolverSDEScheduler": _KARRAS,
    "DEISMultistepScheduler": _COMMON,
    "UniPCMultistepScheduler": _COMMON,
    "SASolverScheduler": _COMMON,
    "LCMScheduler": _DISTILLED,
    "TCDScheduler": _DISTILLED,
}


def read_trained_noise(folder: Path) -> dict[str, Any]:
    """Read the facts about the model from the configuration of its scheduler.

    Args:
        folder: Folder of the pipeline; the file is in its folder `scheduler`, or in very old pipelines in `folder`.

    Returns:
        `noise_schedule`: arguments of `NoiseSchedule`; `prediction_type`; `learned_variance`: whether the model
        also predicts a variance; `thresholding_ratio`: the quantile of the thresholding in the model's own scheduler,
        None without thresholding.

    Raises:
        UnusableFile: if the file is missing, or its process is not variance-preserving with a supported beta schedule.
    """
    path = next((p for p in (folder / "scheduler" / NAME, folder / NAME) if p.is_file()), None)
    if path is None:
        raise UnusableFile(f"{folder} has no scheduler/{NAME}, which says what noise the model was trained with")

    given = read_json(path)
    name = str(given.get("_class_name"))
    if name not in CLASSES or given.get("use_flow_sigmas"):
        kind = f"{name} with use_flow_sigmas" if name in CLASSES else name
        raise UnusableFile(
            f"{path} describes a {kind}, whose noise is not supported; supported are {', '.join(CLASSES)}"
        )

    values = {key: given.get(key, default) for key, default in CLASSES[name].items()}
    for key, accepted in (("beta_schedule", BETA_SCHEDULES), ("prediction_type", PREDICTION_TYPES)):
        if values[key] not in accepted:
            raise UnusableFile(f"{path}: {key} = {values[key]!r} is not supported, only {', '.join(accepted)}")

    schedule = {key: values[key] for key in SCHEDULE_ARGUMENTS}
    schedule["rescale_betas_zero_snr"] = values["rescale_betas_zero_snr"] or False  # null is false in diffusers
    try:
        NoiseSchedule(**schedule)
    except (ValueError, TypeError) as error:
        raise UnusableFile(f"{path} describes no noise: {plainly(error)}") from error

    return {
        "noise_schedule": schedule,
        "prediction_type": values["prediction_type"],
        "learned_variance": str(given.get("variance_type", "")).startswith("learned"),
        "thresholding_ratio": given.get("dynamic_thresholding_ratio", 0.995) if given.get("thresholding") else None,
    }
