"""What several benchmarks need: timing, and the settings of a scheduler for a model."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from adaptive_diffusion.types import PictureModel


def seconds(function: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def scheduler_settings(model: PictureModel) -> dict[str, Any]:
    """The constructor arguments by which a scheduler fits a model."""
    return {"prediction_type": model.metadata["prediction_type"], **model.metadata["noise_schedule"]}
