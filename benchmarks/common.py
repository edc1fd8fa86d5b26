"""What several benchmarks need: timing, the settings of a scheduler for a model, and its images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.grids.base import Spacing
from adaptive_diffusion.optimization.domains import DomainType
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.classes import DPMSolverScheduler
from adaptive_diffusion.schedulers.core import SchedulerCore
from adaptive_diffusion.schedulers.unipc_ipndm import UniPCScheduler
from adaptive_diffusion.types import PictureModel

DOMAINS = tuple(map(str, DomainType))  # that ship


def seconds(function: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def interval_of(text: str) -> tuple[float, float]:
    """The two numbers of an interval, low:high.

    Raises:
        ValueError: for another text.
    """
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise ValueError(f"an interval is two numbers, low:high, got {text!r}") from None


def scheduler_settings(model: PictureModel) -> dict[str, Any]:
    """The constructor arguments by which a scheduler fits a model."""
    return {"prediction_type": model.metadata["prediction_type"], **model.metadata["noise_schedule"]}


def classical_schedulers(
    settings: dict[str, Any], grids: Mapping[str, Spacing], n: int
) -> Iterator[tuple[str, SchedulerCore]]:
    """DPM-Solver++(2M) and UniPC on some grids, their n timesteps set, each with a name."""
    solvers: dict[str, Any] = {"2M": DPMSolverScheduler, "UniPC": UniPCScheduler}
    for name, grid in grids.items():
        for solver, kind in solvers.items():
            scheduler = kind(clip_sample=True, **settings)
            scheduler.set_timesteps(timesteps=grid(scheduler.schedule, n))
            yield f"{solver} {name}", scheduler


def images_by(scheduler: SchedulerCore, model: GuidedModel, x_T: mx.array, batch_size: int | None = None) -> np.ndarray:
    """(N, H, W, C) images in [-1, 1].

    Args:
        scheduler: Its timesteps are set.
        model: The model, with its guidance and its condition: one row for all images, or one for each.
        x_T: (N, H, W, C) standard normal noise.
        batch_size: Images per evaluation; None: all of them.
    """
    N, rows, images = len(x_T), model.condition, []
    rows = None if rows is None else mx.broadcast_to(rows, (N, *rows.shape[1:]))
    for first in range(0, N, batch_size or N):
        some = slice(first, first + (batch_size or N))
        drawn = StandardSampler(scheduler).run(model, x_T[some], condition=None if rows is None else rows[some])
        images.append(np.array(drawn.images))
    return np.clip(np.concatenate(images), -1, 1)
