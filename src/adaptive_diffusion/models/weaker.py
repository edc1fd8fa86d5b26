"""`guidance=auto`: guidance by the model of a checkpoint."""

from __future__ import annotations

import math
from pathlib import Path

from ..diffusion.autoguidance import Autoguidance
from .checkpoint import load_model


def by_weaker_model(
    weak_model: str | Path, weight: float, low: float = -math.inf, high: float = math.inf
) -> Autoguidance:
    """Guidance by a weaker model.

    Args:
        weak_model: Its file, which `save_model` wrote.
        weight, low, high: See `Autoguidance`.

    Raises:
        UnusableFile: if the file cannot be used.
        ValueError: for a value out of range.
    """
    return Autoguidance(load_model(weak_model), weight, low, high)
