"""What several benchmarks need: timing, and the settings of a scheduler for a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from adaptive_diffusion.grids.base import Spacing
from adaptive_diffusion.schedulers.classes import DPMSolverScheduler
from adaptive_diffusion.schedulers.core import SchedulerCore
from adaptive_diffusion.schedulers.unipc_ipndm import UniPCScheduler
from adaptive_diffusion.types import PictureModel


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
