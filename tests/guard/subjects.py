"""Everything that the guard imports, in one place: a move of modules, or a change of names, touches this file alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

TESTS = Path(__file__).parent.parent
PINNED = Path(__file__).parent / "pinned"  # files that version 0.1.0 shipped, or parts of them
sys.path += [str(TESTS), str(TESTS / "rl")]

from policy_files import random_policy  # noqa: E402
from tiny import configuration, tiny_model  # noqa: E402

from adaptive_diffusion.baseline.pipeline import DiffusionPipeline  # noqa: E402
from adaptive_diffusion.calibration.calibrate import ScheduleCalibration  # noqa: E402
from adaptive_diffusion.diffusion import Clipped, GuidedModel, Thresholded, unlimited  # noqa: E402
from adaptive_diffusion.diffusion.rng import image_keys, normal  # noqa: E402
from adaptive_diffusion.diffusion.schedule import NoiseSchedule  # noqa: E402
from adaptive_diffusion.grids import FixedGrid, PolicyGrid, Residuals, Spaced  # noqa: E402
from adaptive_diffusion.grids.calibrated import CalibratedGrid  # noqa: E402
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score  # noqa: E402
from adaptive_diffusion.grids.spacings import BlendedGrid, KarrasGrid, LogSNRGrid, PowerGrid  # noqa: E402
from adaptive_diffusion.optimization.configuration import DomainConfig  # noqa: E402
from adaptive_diffusion.optimization.environment import DomainEnv  # noqa: E402
from adaptive_diffusion.rl.agent_file import read_agent  # noqa: E402
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv  # noqa: E402
from adaptive_diffusion.rl.learned_scheduler import LearnedScheduler  # noqa: E402
from adaptive_diffusion.rl.policy import load_policy  # noqa: E402
from adaptive_diffusion.rl.reward import HybridReward, QualityReward  # noqa: E402
from adaptive_diffusion.rl.timestep_environment import TimestepEnv  # noqa: E402
from adaptive_diffusion.runs.sample import draw  # noqa: E402
from adaptive_diffusion.runs.setup import prepare  # noqa: E402
from adaptive_diffusion.sampling.converged import Converged, converged_pictures  # noqa: E402
from adaptive_diffusion.sampling.quality_guided import QualityGuidedSampler  # noqa: E402
from adaptive_diffusion.sampling.rollout import Rollout, finished, run  # noqa: E402
from adaptive_diffusion.sampling.standard import StandardSampler  # noqa: E402
from adaptive_diffusion.sampling.step_reduction import StepReductionSampler  # noqa: E402
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler  # noqa: E402
from adaptive_diffusion.schedulers.classes import DDIMScheduler, DDPMScheduler, DPMSolverScheduler  # noqa: E402
from adaptive_diffusion.schedulers.unipc_ipndm import IPNDMScheduler, UniPCScheduler  # noqa: E402
from adaptive_diffusion.solvers import DDIM, DDPM, IPNDM, Checked, DPMSolver, Fitted, UniPC  # noqa: E402
from adaptive_diffusion.solvers.fitted import levels_of, multistep_rows  # noqa: E402

__all__ = [
    "DDIM",
    "DDPM",
    "IPNDM",
    "PINNED",
    "AdaptiveScheduler",
    "BlendedGrid",
    "CalibratedGrid",
    "Checked",
    "Clipped",
    "Converged",
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolver",
    "DPMSolverScheduler",
    "DiffusionHyperparameterEnv",
    "DiffusionPipeline",
    "Fitted",
    "FixedGrid",
    "GuidedModel",
    "HybridReward",
    "IPNDMScheduler",
    "KarrasGrid",
    "LearnedScheduler",
    "LogSNRGrid",
    "NoiseSchedule",
    "PolicyGrid",
    "PowerGrid",
    "QualityGuidedSampler",
    "QualityReward",
    "Residuals",
    "Rollout",
    "ScheduleCalibration",
    "Spaced",
    "StandardSampler",
    "StepReductionSampler",
    "Thresholded",
    "TimestepEnv",
    "UniPC",
    "UniPCScheduler",
    "calibrated_by",
    "calibration_of",
    "converged",
    "domain_environment",
    "drawing",
    "drawn",
    "finished",
    "image_keys",
    "normal",
    "pipeline_folder",
    "policy_of",
    "random_policy",
    "rows_of",
    "run",
    "tiny_guided",
    "unlimited",
]


def drawing(denoiser: Callable[..., mx.array], shape: tuple[int, int, int], settings: dict[str, Any]) -> Any:
    """What an environment draws."""
    return replace(DDIMScheduler(**settings).guided(denoiser), state_shape=shape)


def domain_environment(drawing: Any, calibration: Any, **batches: int) -> Any:
    """The environment that tunes around five calibrated steps, compared with ten steps of the power grid."""
    start = DomainConfig(num_steps=5, calibration=calibration)
    return DomainEnv(drawing, start, DomainConfig(num_steps=10), HybridReward(0.4), **batches)


def rows_of(schedule: NoiseSchedule, timesteps: Any, corrections: Any) -> np.ndarray:
    """The weights of calibrated steps."""
    return multistep_rows(levels_of(schedule, np.array(timesteps)), np.array(corrections))


def policy_of(path: Path) -> tuple[Any, np.ndarray]:
    """The policy in a file, and the timesteps of its prior."""
    header, _ = read_agent(path)
    return load_policy(path), np.array(header["environment"]["prior"])


def calibrated_by(steps: dict[int, tuple[list[float], list[list[float]] | None]]) -> Any:
    """A calibrated schedule of made-up steps: n -> timesteps and corrections."""
    score = {"made up": Score(0.1, 0.01)}
    found = {
        n: CalibratedSteps(tuple(timesteps), None if rows is None else tuple(map(tuple, rows)), "made up", score)
        for n, (timesteps, rows) in steps.items()
    }
    return CalibratedSchedule("model", 1.5, "landscapes", 1000, "made up", 2, 2, found)


def calibration_of(
    denoiser: Callable[..., mx.array],
    shape: tuple[int, int, int],
    settings: dict[str, Any],
    condition: mx.array,
    task: Any,
) -> Any:
    """Calibrate a model in one domain, to the end."""
    model = replace(
        DPMSolverScheduler(**settings).guided(denoiser, condition),
        state_shape=shape,
        identity="model",
        domain="landscapes",
    )
    return list(task.calibrate(model))[-1]


def converged(
    denoiser: Callable[..., mx.array], settings: dict[str, Any], x_T: mx.array, condition: mx.array | None
) -> Converged:
    """The converged solution from some noises."""
    model = DPMSolverScheduler(clip_sample=True, **settings).guided(denoiser, condition)
    return converged_pictures(model, x_T, most_steps=256)


def drawn(folder: Path, *overrides: str) -> tuple[np.ndarray, np.ndarray]:
    """What `sample.py` draws with some settings: images and evaluations."""
    parts = prepare(configuration("sample", folder, "metrics=none", "tracking=none", *overrides))
    batches = draw(parts)
    return (
        np.concatenate([np.array(batch.images) for batch in batches]),
        np.concatenate([batch.evaluations for batch in batches]),
    )


def tiny_guided(guidance_scale: float) -> tuple[Any, dict[str, Any], tuple[int, int, int]]:
    """The tests' tiny U-Net with guidance, what it was trained with, and the shape of its images."""
    model = tiny_model()
    settings = {"prediction_type": model.metadata["prediction_type"], **model.metadata["noise_schedule"]}
    return GuidedModel(model, guidance_scale=guidance_scale).__call__, settings, model.state_shape


def pipeline_folder(kind: str, folder: Path) -> Path:
    """A folder of a tiny diffusers pipeline whose weights do not depend on PyTorch's random numbers."""
    import torch
    from tiny_pipelines import PIPELINES

    pipeline, rng = PIPELINES[kind](), np.random.default_rng(7)
    networks = (getattr(pipeline, name, None) for name in ("unet", "vae", "text_encoder", "text_encoder_2"))
    with torch.no_grad():
        for network in filter(None, networks):
            for parameter in network.parameters():
                size = 0.1 if parameter.ndim == 1 else (1.5 / parameter[0].numel()) ** 0.5
                values = rng.normal(0, size, parameter.shape) + (1.0 if parameter.ndim == 1 else 0.0)
                parameter.copy_(torch.from_numpy(values))
    pipeline.save_pretrained(folder)
    return folder
