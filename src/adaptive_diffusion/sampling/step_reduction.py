"""StepReductionSampler: only as many steps as a picture needs, decided after its first model evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np

from ..baseline.checks import check_number
from ..errors import UserError
from ..rng import step_keys
from ..schedulers.adaptive import AdaptiveScheduler
from ..types import Denoiser, Scheduler, SchedulerOutput, StepTrace
from .estimating import EstimatingSampler, replaced
from .quality import error_of, quality_of


class StepReductionSampler(EstimatingSampler):
    """Chooses the number of steps of each picture by a measured curve, at most as many as the scheduler has.

    The curve tells the RMSE to the converged solution that n steps leave on average: that of the scheduler's
    calibration, from the noises held out from it, or the shipped one of the plain power grid. For a domain where the
    complexity c of the first clean prediction was seen to matter, it is multiplied by (c / mean)^exponent. A picture
    gets the fewest steps for which that is no more than the target allows. What it ends with is reported beside the
    target: on the way by the `QualityEstimator`, at the end by the curve, which knows the solver.

    All grids begin at the same timestep, so that the first evaluation is one for all; then pictures with the same
    number of steps go on together. Picture i does not depend on its batch.

    Args:
        scheduler: Its timesteps set; its own grid.
        quality_target: Quality that a picture is to have, in (0, 1]: 1 / (1 + RMSE / 0.12), at ordinary contrast.
        domain: What is drawn, for the part that complexity plays; None: it plays none.
        calibration: See `QualityEstimator`.

    Raises:
        ValueError: for a target out of range, or a scheduler whose steps no curve was measured for.
        UserError: if the calibration cannot be read.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        quality_target: float = 0.9,
        domain: str | None = None,
        calibration: str | None = None,
    ):
        super().__init__(scheduler, calibration)
        if not isinstance(scheduler, AdaptiveScheduler):
            raise ValueError(
                f"steps are reduced by a measured curve, and there is none for {type(scheduler).__name__}: take "
                "scheduler=adaptive"
            )
        self.quality_target = check_number("quality_target", quality_target, 0, 1, above=True)
        self.domain = domain

    def iterate(
        self, model: Denoiser, x_T: mx.array, *, condition: mx.array | None = None, keys: mx.array | None = None
    ) -> Iterator[StepTrace]:
        """Yield one trace per step: the first of all pictures, then those of each number of steps, the fewest first.

        Raises:
            UserError: for a schedule of one step, or timesteps that are not the scheduler's own.
        """
        scheduler, count, most = self.scheduler, len(x_T), len(self.scheduler)
        self._check_grid(most)
        self._history.clear()
        first, x_t = float(scheduler.timesteps[0]), x_T * scheduler.init_noise_sigma
        prediction = model(scheduler.scale_model_input(x_t, first), mx.full((count,), first), condition)
        pictures, quality, index = scheduler.predict_x0(prediction, first, x_t), np.zeros(count), 0
        detail = self._detail(pictures)
        steps = self._choose(detail, most)
        yield self._trace(index, first, pictures, np.arange(count), quality)
        for n in np.unique(steps):
            rows = np.flatnonzero(steps == n)
            some = mx.array(rows)
            given, own_keys = (None if every is None else every[some] for every in (condition, keys))
            x, output = x_t[some], prediction[some]
            scheduler.set_timesteps(int(n))
            self.estimator.begin()
            for i, (t, level) in enumerate(zip(scheduler.timesteps, self._levels(), strict=True)):
                if i > 0:
                    output = model(scheduler.scale_model_input(x, t), mx.full((len(rows),), float(t)), given)
                key = None if own_keys is None else step_keys(own_keys, i)
                step = scheduler.step(output, t, x, key=key, return_dict=True)
                assert isinstance(step, SchedulerOutput)
                x = step.prev_sample
                seen = self.estimator.observe(level, step.pred_original_sample, last=i + 1 == n)
                if i > 0:
                    quality[rows] = self.estimator.quality(seen)
                    if i + 1 == n:
                        quality[rows] = quality_of(self.expected_error(int(n)) * detail[rows])
                    pictures, index = replaced(pictures, rows, step.pred_original_sample), index + 1
                    yield self._trace(index, float(t), pictures, rows, quality)
        scheduler.set_timesteps(most)
        self._final.append(quality)

    def expected_error(self, steps: int) -> float:
        """RMSE that a number of steps leaves on average: the curve, between its points by powers of the steps."""
        points = sorted(self.curve().items())
        known, errors = (np.log(column) for column in zip(*points, strict=True))
        return float(np.exp(np.interp(np.log(steps), known, errors)))

    def curve(self) -> dict[int, float]:
        """Number of steps -> mean RMSE to the converged solution, of the steps that the scheduler takes."""
        assert isinstance(self.scheduler, AdaptiveScheduler)
        if (calibration := self.scheduler.calibration) is None:
            return dict(self.estimator.calibration.curve)
        return {n: steps.scores[steps.rule].mean for n, steps in calibration.steps.items()}

    def report(self) -> dict[str, float]:
        """Target, mean expected quality, and the share to reach the target, of all pictures since `reset_history`."""
        if not self._final:
            return {}
        reached = float((np.concatenate(self._final) >= self.quality_target).mean())
        return {
            **super().report(),
            "sampling/quality_target": self.quality_target,
            "sampling/share_at_target": reached,
        }

    def _choose(self, detail: np.ndarray, most: int) -> np.ndarray:
        """(B,) factors of the curve -> (B,) numbers of steps, in [2, most]."""
        known = [n for n in self.curve() if 2 <= n <= most]
        enough = np.full(len(detail), most)
        for n in sorted(known, reverse=True):
            enough = np.where(self.expected_error(n) * detail <= error_of(self.quality_target), n, enough)
        return enough

    def _detail(self, x0: mx.array) -> np.ndarray:
        """(B,) factors of the curve."""
        known = self.estimator.calibration.detail.get(self.domain or "")
        if known is None:
            return np.ones(len(x0))
        c = complexities(x0)
        return np.asarray((np.maximum(c, 1e-3) / known["complexity"]) ** known["exponent"])

    def _trace(self, index: int, t: float, x0: mx.array, rows: np.ndarray, quality: np.ndarray) -> StepTrace:
        active = np.zeros(len(x0), bool)
        active[rows] = True
        self._history.append(float(quality.mean()))
        return StepTrace(index, t, x0, active, quality.copy())

    def _check_grid(self, most: int) -> None:
        assert isinstance(self.scheduler, AdaptiveScheduler)
        if most < 2:
            raise UserError("there are no steps to reduce: take num_steps of at least 2, or sampler=standard")
        info = self.scheduler.get_schedule_info()
        if info["rule"] is None and info["power"] is None:
            raise UserError("steps are reduced on the scheduler's own grid: take grid=own, or sampler=standard")


def complexities(x0: mx.array) -> np.ndarray:
    """(B, H, W, C) -> (B,) share of each picture's contrast between neighbouring pixels, in [0, 1].

    As `AdaptiveScheduler.estimate_complexity`, for every picture.
    """
    contrast = mx.mean(mx.var(x0, axis=(1, 2)), axis=-1)
    dy, dx = x0[:, 1:] - x0[:, :-1], x0[:, :, 1:] - x0[:, :, :-1]
    edges = mx.mean(dy * dy, axis=(1, 2, 3)) + mx.mean(dx * dx, axis=(1, 2, 3))
    return np.array(mx.minimum(mx.sqrt(edges / (4 * contrast + 1e-8)), 1), np.float64)
