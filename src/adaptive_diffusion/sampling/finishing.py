"""Finishing: from where a picture stopped, the last few evaluations of the model, in long strides."""

from __future__ import annotations

import math
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..baseline.scheduler_base import SchedulerBase
from .quality import QualityEstimator, kept_within

POWER = 1.7  # of the noise levels on the way; with 3 evaluations somewhat nearer to the converged solution than 2


class Seen(NamedTuple):
    """An evaluation of the model.

    Attributes:
        level: sigma / alpha where it was.
        x0: (B, H, W, C) its clean predictions.
    """

    level: float
    x0: mx.array


def finishing_levels(level: float, count: int, lowest: float) -> np.ndarray:
    """Noise levels of the evaluations that finish a picture.

    Args:
        level: sigma / alpha of its latest evaluation.
        count: Evaluations to come, >= 0.
        lowest: The least level that the model knows, at most `level`.

    Returns:
        (count,) float64 levels between the two, decreasing, equally spaced in the power 1 / 1.7 of what is above the
        lowest. For `count` 3: 0.61, 0.31 and 0.09 of the way.
    """
    ahead = 1 - np.arange(1, count + 1) / (count + 1)
    return np.asarray(lowest + (level - lowest) * ahead**POWER)


def stride(state: mx.array, then: float, now: Seen, before: Seen | None = None) -> mx.array:
    """A step of second order along the ODE, taking the clean prediction to be linear in the noise level.

    In xh = x / alpha and s = sigma / alpha the exact step from s to s' is xh' = r xh + (1 - r) M, with r = s' / s and M
    the mean of the clean prediction D(q) over the way, weighted with 1 / q^2. If D is a line in q, M is its value at
    s s' log(s / s') / (s - s'). For small steps a line in s^2 or in log-SNR serves as well; over strides of the
    shipped model this one led nearest to the converged solution.

    Args:
        state: (B, H, W, C) xh at the level s.
        then: s' in [0, s); at 0 the result is a clean picture.
        now: s and the clean predictions there.
        before: The same of an earlier evaluation; None: a step of first order.

    Returns:
        (B, H, W, C) xh at `then`.
    """
    r, mean = then / now.level, now.x0
    if before is not None:
        middle = then * math.log(1 / r) / (1 - r) if then > 0 else 0.0
        mean = mean + (now.x0 - before.x0) * ((now.level - middle) / (before.level - now.level))
    return r * state + (1 - r) * mean


class Finish:
    """Pictures that stopped at the same step, on their way to the end.

    They go on from the state in which they were evaluated last: a stride takes the place of the step that the schedule
    would have taken from there. None adds noise, whatever the schedule's steps did.

    Args:
        scheduler: Knows the noise schedule, and what a prediction means; none of its steps is taken.
        estimator: Has seen no step yet; it is to estimate the quality of these pictures.
        evaluations: Evaluations to come, >= 1.
        rows: (B,) which pictures they are.
        x_t: (B, H, W, C) states of their latest evaluation.
        now: What that saw.
        before: What the evaluation before saw; None: there was none.
    """

    def __init__(
        self,
        scheduler: SchedulerBase,
        estimator: QualityEstimator,
        evaluations: int,
        rows: np.ndarray,
        x_t: mx.array,
        now: Seen,
        before: Seen | None,
    ):
        self.scheduler, self.estimator, self.rows = scheduler, estimator, rows
        lowest = float(np.exp(-scheduler.schedule.log_snr(0)))
        self._ahead = [*map(float, finishing_levels(now.level, evaluations, lowest)), 0.0]
        estimator.observe(now.level, now.x0)
        self._stride(x_t / _alpha(now.level), now, before)

    @property
    def timestep(self) -> float:
        """Where the model is to be evaluated next."""
        return float(self.scheduler.schedule.timestep(-math.log(self._level)))

    @property
    def x_t(self) -> mx.array:
        """(B, H, W, C) what the model is to be evaluated on next."""
        return self._state * _alpha(self._level)

    @property
    def done(self) -> bool:
        """Whether they are finished."""
        return not self._ahead

    def observe(self, prediction: mx.array) -> tuple[mx.array, np.ndarray]:
        """Take in the model's prediction at `x_t` and stride on.

        Returns:
            pictures: (B, H, W, C) the clean predictions; after the last evaluation the finished pictures.
            quality: (B,) their estimated quality, see `QualityEstimator`.
        """
        x0 = self.scheduler.predict_x0(prediction, self.timestep, self.x_t)
        seen = Seen(self._level, x0)
        self._stride(self._state, seen, self._before)
        pictures = kept_within(self._state, x0) if self.done else x0
        return pictures, self.estimator.quality(self.estimator.observe(seen.level, pictures, self.done))

    def _stride(self, state: mx.array, now: Seen, before: Seen | None) -> None:
        self._level, self._before = self._ahead.pop(0), now
        self._state = stride(state, self._level, now, before)


def _alpha(level: float) -> float:
    """alpha where sigma / alpha is `level`."""
    return 1 / math.sqrt(1 + level**2)
