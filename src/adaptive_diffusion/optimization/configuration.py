"""DomainConfig: how to sample in a domain, and how certain its score is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..grids.calibrated_schedule import CalibratedSchedule
from ..schedulers.adaptive import AdaptiveScheduler
from ..schedulers.configuration import HYPERPARAMETERS, Configuration

# settings of `QualityGuidedSampler`
STOPPING = ("quality_threshold", "early_stopping", "patience", "min_steps", "max_steps", "finish")
NEAR = 0.1  # scores that differ by less count as equal


@dataclass(frozen=True)
class DomainConfig(Configuration):
    """Hyperparameters of sampling. The solver `dpm_solver` stands for `AdaptiveScheduler`, calibrated if possible.

    Attributes:
        num_steps: Network evaluations per image, >= 1.
        adaptive_threshold: Threshold of `AdaptiveScheduler`, in [0, 1]; other solvers ignore it.
        progress_power: Power of the grid, in (0, 10]; calibrated steps ignore it.
        solver: `dpm_solver`, `unipc` or `ipndm`.
        guidance_weight, guidance_low, guidance_high: See `Configuration`.
        confidence: Probability that its mean score lies within 0.1 of the measured mean; 0 if nothing was measured.
        source: Its origin, in words.
        calibration: The calibrated steps of the model in the domain, or None.
        calibrated: Whether it was tuned with calibrated steps; None: not known, or not tuned.

    Raises:
        ValueError: for a value out of range.
    """

    confidence: float = field(default=0.0, compare=False)
    source: str = field(default="the default", compare=False)
    calibration: CalibratedSchedule | None = field(default=None, compare=False, repr=False)
    calibrated: bool | None = field(default=None, compare=False)

    def _adaptive(self, settings: Mapping[str, Any]) -> AdaptiveScheduler:
        return super()._adaptive({**settings, "calibration": self.calibration})


def confidence_of(standard_error: float) -> float:
    """Probability that a normal mean lies within 0.1 of the measured one: erf(0.1 / (sqrt(2) SE)), in [0, 1]."""
    if standard_error <= 0:
        return 1.0
    return math.erf(NEAR / (math.sqrt(2) * standard_error))


def split_config(config: DomainConfig | Mapping[str, Any] | None) -> tuple[DomainConfig | None, dict[str, Any]]:
    """A user's configuration, None without hyperparameters, and its settings of `QualityGuidedSampler`.

    Raises:
        ValueError: for a name that is neither.
    """
    if config is None or isinstance(config, DomainConfig):
        return config, {}

    names = HYPERPARAMETERS
    if unknown := sorted(set(config) - {*names, *STOPPING}):
        raise ValueError(f"config has no {unknown[0]!r}; it has {', '.join(names)}, and {', '.join(STOPPING)}")

    chosen = {name: config[name] for name in names if name in config}
    stopping = {name: config[name] for name in STOPPING if name in config}
    return (replace(DomainConfig(), **chosen) if chosen else None), stopping
