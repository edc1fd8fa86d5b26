"""What was measured of a batch of images, beside a baseline's images from the same noises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

REAL_UNIT = 0.1  # distance to real images, see `MomentDistance`, that counts as a quality of 1


@dataclass(frozen=True, eq=False)
class Sampled:
    """The images drawn from a batch of noises: their errors, and their cost.

    Attributes:
        errors: (B,) see `Noises.errors`.
        evaluations: Model evaluations per image.
        seconds: Seconds per image.
        passes: Passes through the network per image.
        states: (B, H, W, C) the clean states, where they are rendered.
    """

    errors: np.ndarray
    evaluations: int
    seconds: float
    passes: int
    states: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured of B images.

    Attributes:
        errors: (B,) see `Noises.errors`: distances to the converged solutions, > 0, unless those to real images count.
        evaluations: Model evaluations per image.
        seconds: Seconds per image.
        baseline_errors: (B,) the baseline's distances, from the same noises.
        baseline_evaluations: The baseline's evaluations per image.
        baseline_seconds: The baseline's seconds per image.
        passes: Passes through the network per image, two for a guided evaluation; 0: not counted.
        baseline_passes: The baseline's.
    """

    errors: np.ndarray
    evaluations: float
    seconds: float
    baseline_errors: np.ndarray
    baseline_evaluations: float
    baseline_seconds: float
    passes: float = 0.0
    baseline_passes: float = 0.0

    @classmethod
    def of(cls, sampled: Sampled, baseline: Sampled) -> Self:
        """What was measured of images beside the baseline's."""
        return cls(
            errors=sampled.errors,
            evaluations=sampled.evaluations,
            seconds=sampled.seconds,
            baseline_errors=baseline.errors,
            baseline_evaluations=baseline.evaluations,
            baseline_seconds=baseline.seconds,
            passes=sampled.passes,
            baseline_passes=baseline.passes,
        )

    @property
    def quality(self) -> np.ndarray:
        """(B,) log(baseline error / error) of each image; its mean is what is reported as quality."""
        return np.asarray(np.log(self.baseline_errors / self.errors))

    def speed(self, unit: str = "evaluations") -> float:
        """1 - cost / baseline's cost: at most 1, 0 for the baseline's own cost, -1 for twice of it."""
        return 1.0 - getattr(self, unit) / getattr(self, f"baseline_{unit}")


class RealMeasurement(Measurement):
    """What was measured of B images where errors are parts of a distance to real images, see `RealNoises`.

    The mean of the errors is an unbiased estimate that may be negative, so that quality is a difference and no ratio.
    """

    @property
    def quality(self) -> np.ndarray:
        """(B,) (baseline error - error) / 0.1 of each image."""
        return np.asarray((self.baseline_errors - self.errors) / REAL_UNIT)
