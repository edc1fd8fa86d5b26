"""What samplers share that estimate the quality of their images on the way."""

from __future__ import annotations

import logging
from typing import Any

import mlx.core as mx
import numpy as np

from ..io.pixels import to_float
from ..schedulers.core import SchedulerCore
from .quality import QualityEstimator, content_of
from .standard import StandardSampler

log = logging.getLogger(__name__)


class EstimatingSampler(StandardSampler):
    """A sampling loop with a `QualityEstimator` and a memory of what that said.

    Args:
        scheduler: Grid and solver, with its timesteps set.
        calibration: See `QualityEstimator`.
        model: Content hash of the model that draws. If the calibration is of another one, a warning says so and
            `report` leaves out what it estimates; None: it is not compared.

    Raises:
        ValueError: for what is no `SchedulerCore`.
        UnusableFile: if the calibration cannot be read.
    """

    def __init__(self, scheduler: SchedulerCore, calibration: str | None = None, model: str | None = None):
        super().__init__(scheduler)
        self.estimator = QualityEstimator(calibration)
        self.model = model
        measured = self.estimator.calibration.model
        self._foreign = model is not None and model != measured
        if self._foreign:
            log.warning(
                "quality is estimated by a calibration of the model %.12s, and this one is %.12s: it ranks images, "
                "but its scale is not this model's, and its mean is not reported",
                measured,
                model,
            )

        self.reset_history()

    @property
    def config(self) -> dict[str, Any]:
        """What decides the images besides the scheduler, JSON types."""
        return {"calibration": content_of(self.estimator.calibration), "model": self.model}

    def estimate_quality(self, sample: mx.array) -> float:
        """Mean quality in [0, 1] of clean images, (B, H, W, C) or (H, W, C), from variance and gradients alone.

        Images are floats in [-1, 1]; uint8 ones are scaled. The run itself knows better: see `get_quality_history`.
        """
        images = mx.array(sample)
        if images.dtype == mx.uint8:
            images = mx.array(to_float(np.array(images)))
        return float(self.estimator.still_quality(images[None] if images.ndim == 3 else images).mean())

    def get_quality_history(self) -> list[float]:
        """Mean estimated quality of the images after each step of the latest run, each in [0, 1].

        An image that is finished counts with what it ended with; the first step, which has nothing to compare with,
        is 0.
        """
        return list(self._history)

    def reset_history(self) -> None:
        """Forget the qualities of earlier runs."""
        self._history: list[float] = []
        self._final: list[np.ndarray] = []

    def report(self) -> dict[str, float]:
        """`sampling/estimated_quality`: mean over all images drawn since `reset_history`; {} if it is not known."""
        if self._foreign or not self._final:
            return {}
        return {"sampling/estimated_quality": float(np.concatenate(self._final).mean())}
