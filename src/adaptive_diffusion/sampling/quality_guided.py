"""QualityGuidedSampler: every image stops when it is good enough, and its share of the work stops with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.arrays import replaced
from ..diffusion.checks import check_count, check_number
from ..diffusion.evaluation import Denoised
from ..schedulers.core import SchedulerCore
from ..solvers.stride import Stride
from ..types import Denoiser, StepTrace
from .estimating import EstimatingSampler
from .finishing import finishing
from .quality import Observation
from .rollout import Rollout, run
from .standard import beginning, evaluated

log = logging.getLogger(__name__)


class QualityGuidedSampler(EstimatingSampler):
    """Early stopping, image by image.

    An image leaves the schedule once its estimated quality has been at least the threshold for `patience` steps in a
    row. From there it is finished with `finish` more evaluations, in long strides to the clean image (see
    `finishing`); they share their batch with those of the images that are still on the schedule. What is left of the
    batch is all that the model is evaluated on. Image i does not depend on its batch, except by rounding.

    Args:
        scheduler: Grid and solver, with its timesteps set.
        quality_threshold: Estimated quality that is good enough, in [0, 1]; see `QualityEstimator`. The defaults here
            are careful, for schedules of 20 steps and more: within 10 steps quality reaches 0.6 at the eighth or ninth,
            and five steps in a row leave nothing to save. `conf/sampler/quality_guided.yaml` takes 0.55, patience 1, at
            least 6 evaluations and one that finishes, by which images stop within the 10 steps that a run takes by
            default. 0.55 is an RMSE of 0.1 between the clean prediction and the converged solution, at ordinary
            contrast.
        early_stopping: False: quality is estimated, but every image takes every step.
        patience: Steps in a row that quality must hold, >= 1.
        min_steps: Evaluations that every image gets, finishing included, as far as the schedule has them, >= 1.
        max_steps: Evaluations, finishing included, after which an image ends whatever its quality, >= `min_steps`.
        calibration: See `QualityEstimator`.
        model: Content hash of the model that draws; see `EstimatingSampler`.
        finish: Evaluations that finish an image, >= 0. With 0 it ends where it stops, with the clean image that its
            latest predictions point to. No image stops that has no more than these left.

    Raises:
        ValueError: for a value out of range, what is no `SchedulerCore`, or one that may end
            the run before images that stopped are finished.
        UnusableFile: if the calibration cannot be read.
    """

    def __init__(
        self,
        scheduler: SchedulerCore,
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
        self.quality_threshold = check_number("quality_threshold", quality_threshold, 0, 1)
        self.early_stopping = early_stopping
        self.patience = check_count("patience", patience, 1)
        self.min_steps = check_count("min_steps", min_steps, 1)
        self.max_steps = check_count("max_steps", max_steps, 1)
        if self.min_steps > self.max_steps:
            raise ValueError(f"min_steps must be at most max_steps, got {self.min_steps} and {self.max_steps}")
        self.finish = check_count("finish", finish, 0)
        super().__init__(scheduler, calibration, model)
        self.strides = min(self.finish, self.max_steps - 1)
        if early_stopping and self.strides and scheduler.may_stop:
            raise ValueError(
                "the policy of the scheduler may end the run before images that stopped early are finished; take "
                "sampler=standard, sampler.finish=0, or a policy that was trained with task.stopping=false"
            )

    @property
    def config(self) -> dict[str, Any]:
        """What decides the images besides the scheduler, JSON types."""
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
        """Warn if no image can stop before the scheduler's last step."""
        steps = len(self.scheduler)
        known_from = 1 if self.quality_threshold == 0 else 2  # quality after the first step is 0
        earliest = min(max(self.min_steps, self.patience + known_from - 1 + self.strides), self.max_steps)
        if self.early_stopping and earliest >= steps:
            log.warning(
                "no image can stop early: with min_steps=%d, patience=%d and finish=%d the first to end has taken "
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
        """Yield one trace per step, until no image is left; see `StandardSampler.iterate`.

        A trace's timestep is that of the images on the schedule, or, when none is left there, of those that left it
        last.
        """
        self._history.clear()
        answering, rollout = beginning(self.scheduler, model, x_T, condition, keys)
        stopping = _Stopping(self, len(x_T))

        pictures = mx.array(x_T)
        for index, moved in enumerate(run(answering, [rollout], stopping)):
            for some in moved:
                assert some.x0 is not None
                pictures = replaced(pictures, some.rows, some.x0)

            quality = stopping.quality.copy()
            self._history.append(float(quality.mean()))
            active = evaluated(answering, moved, len(x_T))
            # the first are those on the schedule, or else those that left it last
            yield StepTrace(index, moved[0].trail[-1].t, pictures, active, quality)

        self._final.append(stopping.quality)

    def estimate(self, before: Rollout, after: Rollout) -> tuple[Observation, np.ndarray]:
        """What a step shows of its images, and (b,) their estimated quality."""
        assert after.x0 is not None
        previous = None if before.x0 is None else (before.trail[-1].level, before.x0)
        seen = self.estimator.observe(before.node.level, after.x0, previous, after.done)
        return seen, self.estimator.quality(seen)

    def leaving(self, held: np.ndarray, taken: int, steps: int | None) -> np.ndarray:
        """(B,) bool, which images leave the schedule.

        None does where finishing would not take fewer evaluations than the rest of the schedule.

        Args:
            held: (B,) steps in a row that quality held.
            taken: Steps taken.
            steps: Steps of the whole schedule; None where only the way shows how many.
        """
        total = taken + self.strides
        if not self.early_stopping or (steps is not None and total >= steps):
            return np.zeros(len(held), bool)
        return (held >= self.patience) & (total >= self.min_steps) | (total >= self.max_steps)


class _Stopping:
    """Decides after each step which images of a run leave the schedule, and sends them to their end.

    Args:
        sampler: Its settings.
        count: Images of the run.

    Attributes:
        quality: (count,) estimated quality of each image at its latest evaluation.
    """

    def __init__(self, sampler: QualityGuidedSampler, count: int):
        self.sampler = sampler
        self.quality, self._held = np.zeros(count), np.zeros(count, np.int64)

    def __call__(self, before: Rollout, denoised: Denoised, after: Rollout) -> list[Rollout]:
        """See `Decide`."""
        sampler, rows, shown = self.sampler, after.rows, after.x0
        assert shown is not None
        seen, self.quality[rows] = sampler.estimate(before, after)
        if isinstance(after.solver, Stride):
            return [after]

        sampler.scheduler.follow(after.trail, after.node, shown, after.error)
        self._held[rows] = np.where(self.quality[rows] >= sampler.quality_threshold, self._held[rows] + 1, 0)
        leaving = sampler.leaving(self._held[rows], len(after.trail), after.grid.steps)
        if after.done or not leaving.any():
            return [after]

        if sampler.strides:
            gone = finishing(before, denoised, sampler.scheduler.schedule, sampler.strides)
        else:
            gone = after.end(seen.picture)

        return [some for some in (after.select(~leaving), gone.select(leaving)) if len(some.rows)]
