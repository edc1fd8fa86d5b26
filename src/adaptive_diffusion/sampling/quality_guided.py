"""QualityGuidedSampler: every picture stops when it is good enough, and its share of the work stops with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from ..baseline.checks import check_count, check_number
from ..baseline.scheduler_base import SchedulerBase
from ..rng import step_keys
from ..types import Denoiser, Scheduler, SchedulerOutput, StepTrace
from .estimating import EstimatingSampler, replaced
from .finishing import Finish, Seen
from .quality import QualityEstimator

log = logging.getLogger(__name__)


class QualityGuidedSampler(EstimatingSampler):
    """Early stopping, picture by picture.

    A picture leaves the schedule once its estimated quality has been at least the threshold for `patience` steps in a
    row. From there it is finished with `finish` more evaluations, in long strides to the clean picture (see
    `finishing`); they share their batch with those of the pictures that are still on the schedule. What is left of the
    batch is all that the model is evaluated on. Picture i does not depend on its batch, but for rounding.

    Args:
        scheduler: Grid and solver, with its timesteps set.
        quality_threshold: Estimated quality that is good enough, in [0, 1]; see `QualityEstimator`. The defaults
            here are careful. `conf/sampler/quality_guided.yaml` takes 0.45 and patience 3, which were measured to save
            more: an RMSE of 0.15 between the clean prediction and the converged solution, at ordinary contrast, of
            which finishing leaves little.
        early_stopping: False: quality is estimated, but every picture takes every step.
        patience: Steps in a row that quality must hold, >= 1.
        min_steps: Evaluations that every picture gets, finishing included, as far as the schedule has them, >= 1.
        max_steps: Evaluations, finishing included, after which a picture ends whatever its quality, >= `min_steps`.
        calibration: See `QualityEstimator`.
        model: Content hash of the model that draws; see `EstimatingSampler`.
        finish: Evaluations that finish a picture, >= 0. With 0 it ends where it stops, with the clean picture that its
            latest predictions point to. No picture stops that has no more than these left.

    Raises:
        ValueError: for a value out of range, a scheduler that does not tell its noise schedule, or one that may end the
            run before pictures that stopped are finished.
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
        *,
        finish: int = 4,
    ):
        super().__init__(scheduler, calibration, model)
        self.quality_threshold = check_number("quality_threshold", quality_threshold, 0, 1)
        self.early_stopping = early_stopping
        self.patience = check_count("patience", patience, 1)
        self.min_steps = check_count("min_steps", min_steps, 1)
        self.max_steps = check_count("max_steps", max_steps, self.min_steps)
        self.finish = check_count("finish", finish, 0)
        self._strides = min(self.finish, self.max_steps - 1)
        if early_stopping and self._strides and getattr(scheduler, "may_stop", False):
            raise ValueError(
                "the policy of the scheduler may end the run before pictures that stopped early are finished; take "
                "sampler=standard, sampler.finish=0, or a policy that was trained with task.stopping=false"
            )

    @property
    def config(self) -> dict[str, Any]:
        """What decides the pictures besides the scheduler, JSON types."""
        return {
            "quality_threshold": self.quality_threshold,
            "early_stopping": self.early_stopping,
            "patience": self.patience,
            "min_steps": self.min_steps,
            "max_steps": self.max_steps,
            "finish": self.finish,
            **super().config,
        }

    def check(self) -> None:
        """Warn if no picture can stop before the scheduler's last step."""
        steps = len(self.scheduler)
        known_from = 1 if self.quality_threshold == 0 else 2  # quality after the first step is 0
        earliest = min(max(self.min_steps, self.patience + known_from - 1 + self._strides), self.max_steps)
        if self.early_stopping and earliest >= steps:
            log.warning(
                "no picture can stop early: with min_steps=%d, patience=%d and finish=%d the first to end has taken "
                "%d steps, and the run has %d; raise num_steps or lower sampler.min_steps, sampler.patience or "
                "sampler.finish",
                self.min_steps,
                self.patience,
                self.finish,
                earliest,
                steps,
            )

    def iterate(
        self, model: Denoiser, x_T: mx.array, *, condition: mx.array | None = None, keys: mx.array | None = None
    ) -> Iterator[StepTrace]:
        """Yield one trace per step, until no picture is left; see `StandardSampler.iterate`.

        A trace's timestep is that of the pictures on the schedule, or, when none is left there, of those that left it
        last.
        """
        scheduler, estimator, count = self.scheduler, self.estimator, len(x_T)
        estimator.begin()
        self._history.clear()
        pictures, quality = x_T, np.zeros(count)
        rows, held = np.arange(count), np.zeros(count, np.int64)  # pictures on the schedule; steps that quality held
        x_t, before = x_T * scheduler.init_noise_sigma, None
        finishing: list[Finish] = []
        for index, t in enumerate(scheduler.timesteps):
            parts = [(some.rows, some.timestep, some.x_t) for some in finishing]
            if len(rows):
                parts.append((rows, float(t), scheduler.scale_model_input(x_t, t)))
            predictions = _predict(model, parts, condition)
            for some, prediction in zip(finishing, predictions, strict=False):
                shown, quality[some.rows] = some.observe(prediction)
                pictures = replaced(pictures, some.rows, shown)
            finishing = [some for some in finishing if not some.done]
            if len(rows):
                key = None if keys is None else step_keys(keys[mx.array(rows)], index)
                output = scheduler.step(predictions[-1], t, x_t, key=key, return_dict=True)
                assert isinstance(output, SchedulerOutput)
                now, steps = Seen(self._level(t), output.pred_original_sample), len(scheduler)
                last = index + 1 == steps  # a scheduler may choose its timesteps, and how many, on the way
                seen = estimator.observe(*now, last)
                quality[rows] = estimator.quality(seen)
                held = np.where(quality[rows] >= self.quality_threshold, held + 1, 0)
                leaving = self._leaving(held, index + 1, steps)
                ended = leaving & (last or not self._strides)
                shown = mx.where(mx.array(ended).reshape(-1, 1, 1, 1), seen.picture, now.x0)
                pictures = replaced(pictures, rows, shown)
                if (leaving > ended).any():
                    finishing.append(self._finish(rows, x_t, now, before, np.flatnonzero(leaving)))
                x_t, before = output.prev_sample, now
                if leaving.any():
                    stay = np.flatnonzero(~leaving)
                    rows, held, x_t, before = rows[stay], held[stay], x_t[mx.array(stay)], _some(now, stay)
                    scheduler.select(stay)
                    estimator.select(stay)
            self._history.append(float(quality.mean()))
            active = np.isin(np.arange(count), np.concatenate([some for some, *_ in parts]))
            yield StepTrace(index, parts[-1][1], pictures, active, quality.copy())
            if not len(rows) and not finishing:
                break
        self._final.append(quality)

    def _leaving(self, held: np.ndarray, taken: int, steps: int) -> np.ndarray:
        """(B,) bool, which pictures leave the schedule after so many of its steps.

        None does where finishing would not take fewer evaluations than the rest of the schedule.
        """
        total = taken + self._strides
        if taken == steps:
            return np.ones(len(held), bool)
        if not self.early_stopping or total >= steps:
            return np.zeros(len(held), bool)
        return (held >= self.patience) & (total >= self.min_steps) | (total >= self.max_steps)

    def _finish(self, rows: np.ndarray, x_t: mx.array, now: Seen, before: Seen | None, leaving: np.ndarray) -> Finish:
        """Begin to finish those of the pictures `rows` that leave the schedule."""
        assert isinstance(self.scheduler, SchedulerBase)
        estimator = QualityEstimator(self.estimator.calibration)
        x_t, now, before = x_t[mx.array(leaving)], _some(now, leaving), before and _some(before, leaving)
        return Finish(self.scheduler, estimator, self._strides, rows[leaving], x_t, now, before)


def _predict(
    model: Denoiser, parts: Sequence[tuple[np.ndarray, float, mx.array]], condition: mx.array | None
) -> list[mx.array]:
    """The model's predictions of parts of the batch, evaluated together.

    Args:
        model: The denoiser.
        parts: Of each which pictures they are, their timestep, and (b, H, W, C) what the model is to be fed.
        condition: (B, ...) conditions of all pictures, or None.
    """
    rows, times, inputs = zip(*parts, strict=True)
    sizes = [len(some) for some in rows]
    given = None if condition is None else condition[mx.array(np.concatenate(rows))]
    prediction = model(mx.concatenate(inputs), mx.array(np.repeat(times, sizes), dtype=mx.float32), given)
    return list(mx.split(prediction, np.cumsum(sizes)[:-1].tolist()))


def _some(seen: Seen, indices: np.ndarray) -> Seen:
    return Seen(seen.level, seen.x0[mx.array(indices)])
