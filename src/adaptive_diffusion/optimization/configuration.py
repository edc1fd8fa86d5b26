"""DomainConfig: a way of sampling in a domain, and how much is known about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..diffusion.checks import check_count, check_number
from ..grids.calibrated_schedule import CalibratedSchedule
from ..rl.knobs import Configuration
from ..schedulers.adaptive import AdaptiveScheduler

NEAR = 0.1  # a score within this of the measured one counts as the same


@dataclass(frozen=True)
class DomainConfig(Configuration):
    """One way of sampling. With the solver `dpm_solver` it is `AdaptiveScheduler` with its calibration, if it has one.

    Attributes:
        num_steps: Model evaluations per picture, >= 1.
        adaptive_threshold: Of `AdaptiveScheduler`, in [0, 1]; other solvers do not look at it.
        progress_power: Power of the grid, in (0, 10]; calibrated steps do not look at it.
        solver: `dpm_solver`, `unipc` or `ipndm`.
        confidence: Probability that its true mean score lies within 0.1 of the measured one; 0 if nothing was measured.
        source: Where it comes from, in words.
        calibration: The calibrated steps of the model in the domain, or None.

    Raises:
        ValueError: for a value out of range.
    """

    confidence: float = field(default=0.0, compare=False)
    source: str = field(default="the default", compare=False)
    calibration: CalibratedSchedule | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_steps", self.num_steps, 1)
        check_number("adaptive_threshold", self.adaptive_threshold, 0, 1)
        check_number("progress_power", self.progress_power, 0, 10, above=True)

    def to_dict(self) -> dict[str, Any]:
        """The hyperparameters by name."""
        return {f.name: getattr(self, f.name) for f in fields(Configuration)}

    def _adaptive(self, settings: Mapping[str, Any]) -> AdaptiveScheduler:
        return super()._adaptive({**settings, "calibration": self.calibration})


def confidence_of(standard_error: float) -> float:
    """Probability that a normal mean lies within 0.1 of the measured one: erf(0.1 / (sqrt(2) SE)), in [0, 1]."""
    if standard_error <= 0:
        return 1.0
    return math.erf(NEAR / (math.sqrt(2) * standard_error))
