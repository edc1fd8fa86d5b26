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
