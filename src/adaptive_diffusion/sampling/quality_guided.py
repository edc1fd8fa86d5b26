"""QualityGuidedSampler: every picture stops when it is good enough, and its share of the work stops with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from ..baseline.checks import check_count, check_number
from ..rng import step_keys
from ..types import Denoiser, Scheduler, SchedulerOutput, StepTrace
from .estimating import EstimatingSampler, replaced

log = logging.getLogger(__name__)


class QualityGuidedSampler(EstimatingSampler):
    """Early stopping, picture by picture.

    A picture leaves the batch once its estimated quality has been at least the threshold for `patience` steps in a row.
    What it leaves with is the clean picture that the latest predictions point to (see `QualityEstimator`), never a
    noisy state; what is left of the batch is all that the model is evaluated on. Picture i does not depend on its
    batch.

    Args:
        scheduler: Grid and solver, with its timesteps set.
        quality_threshold: Estimated quality that is good enough, in [0, 1]; see `QualityEstimator`. The default
            stands for an RMSE of 0.08 to the converged solution, at ordinary contrast.
        early_stopping: False: quality is estimated, but every picture takes every step.
        patience: Steps in a row that quality must hold, >= 1.
        min_steps: Evaluations that every picture gets, as far as the schedule has them, >= 1.
        max_steps: Evaluations after which a picture stops whatever its quality, >= `min_steps`.
        calibration: See `QualityEstimator`.
        model: Content hash of the model that draws; see `EstimatingSampler`.

    Raises:
        ValueError: for a value out of range, or a scheduler that does not tell its noise schedule.
        UserError: if the calibration cannot be read.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        quality_threshold: float = 0.6,
        early_stopping: bool = True,
        patience: int = 5,
        min_steps: int = 10,
        max_steps: int = 100,
        calibration: str | None = None,
        model: str | None = None,
    ):
        super().__init__(scheduler, calibration, model)
        self.quality_threshold = check_number("quality_threshold", quality_threshold, 0, 1)
        self.early_stopping = early_stopping
        self.patience = check_count("patience", patience, 1)
        self.min_steps = check_count("min_steps", min_steps, 1)
        self.max_steps = check_count("max_steps", max_steps, self.min_steps)

    @property
    def config(self) -> dict[str, Any]:
        """What decides the pictures besides the scheduler, JSON types."""
        return {
            "quality_threshold": self.quality_threshold,
            "early_stopping": self.early_stopping,
            "patience": self.patience,
            "min_steps": self.min_steps,
            "max_steps": self.max_steps,
            **super().config,
        }

    def check(self) -> None:
        """Warn if no picture can stop before the scheduler's last step."""
        steps = len(self.scheduler)
        known_from = 1 if self.quality_threshold == 0 else 2  # quality after the first step is 0
        earliest = min(max(self.min_steps, self.patience + known_from - 1), self.max_steps)
        if self.early_stopping and earliest >= steps:
            log.warning(
                "no picture can stop early: with min_steps=%d and patience=%d the first to stop has taken %d steps, "
                "and the run has %d; raise num_steps or lower sampler.min_steps and sampler.patience",
                self.min_steps,
                self.patience,
                earliest,
                steps,
            )

    def iterate(
        self, model: Denoiser, x_T: mx.array, *, condition: mx.array | None = None, keys: mx.array | None = None
    ) -> Iterator[StepTrace]:
        """Yield one trace per step, until no picture is left; see `StandardSampler.iterate`."""
        scheduler, estimator, count = self.scheduler, self.estimator, len(x_T)
        levels = self._levels()
        estimator.begin()
        self._history.clear()
        quality = np.zeros(count)
        rows, held = np.arange(count), np.zeros(count, np.int64)  # pictures in the batch; steps that quality has held
        pictures, x_t = x_T, x_T * scheduler.init_noise_sigma
        for index, t in enumerate(scheduler.timesteps):
            prediction = model(scheduler.scale_model_input(x_t, t), mx.full((len(rows),), float(t)), condition)
            key = None if keys is None else step_keys(keys, index)
            output = scheduler.step(prediction, t, x_t, key=key, return_dict=True)
            assert isinstance(output, SchedulerOutput)
            x_t, last = output.prev_sample, index + 1 == len(levels)
            seen = estimator.observe(levels[index], output.pred_original_sample, last)
            quality[rows] = estimator.quality(seen)
            held[rows] = np.where(quality[rows] >= self.quality_threshold, held[rows] + 1, 0)
            enough = (held[rows] >= self.patience) & (index + 1 >= self.min_steps)
            leaving = self.early_stopping & (enough | (index + 1 >= self.max_steps)) | last
            shown = mx.where(mx.array(leaving).reshape(-1, 1, 1, 1), seen.picture, output.pred_original_sample)
            pictures = replaced(pictures, rows, shown)
            self._history.append(float(quality.mean()))
            active = np.zeros(count, bool)
            active[rows] = True
            yield StepTrace(index, float(t), pictures, active, quality.copy())
            if leaving.all():
                break
            if leaving.any():
                stay = np.flatnonzero(~leaving)
                keep = mx.array(stay)
                scheduler.select(stay)
                estimator.select(stay)
                rows, x_t = rows[stay], x_t[keep]
                condition, keys = (None if some is None else some[keep] for some in (condition, keys))
        self._final.append(quality)
