"""StepReductionSampler: only as many steps as a quality takes, by a measured curve."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_number
from ..diffusion.node import node_at
from ..errors import Unusable
from ..schedulers.adaptive import AdaptiveScheduler
from ..schedulers.core import SchedulerCore
from ..types import Denoiser, StepTrace
from .estimating import EstimatingSampler
from .quality import error_of, quality_of
from .standard import origin_of

POWER, THRESHOLD = 2.0, 0.5  # of the scheduler that the curves were measured with


class StepReductionSampler(EstimatingSampler):
    """Takes the fewest steps that reach a target, at most as many as the scheduler has.

    A curve tells the RMSE to the converged solution that n steps leave on average, for the numbers of steps that were
    measured: that of the scheduler's calibration, on noises held out from it, or the shipped one of the plain power
    grid. Only these numbers are taken: the fewest that the target allows, or, where none does, the largest. What is
    reported beside the target are the quality that the curve expects and, of the images themselves, what the
    `QualityEstimator` says.

    Args:
        scheduler: Its timesteps set; its own grid.
        quality_target: Quality that images are to have, in (0, 1]: 1 / (1 + RMSE / 0.12), at ordinary contrast.
        calibration: See `QualityEstimator`.
        model: Content hash of the model that draws; None: any, at the caller's risk.

    Raises:
        ValueError: for a target out of range, a scheduler or a model that no curve was measured for, or a calibration
            that cannot be read.
    """

    scheduler: AdaptiveScheduler

    def __init__(
        self,
        scheduler: SchedulerCore,
        quality_target: float = 0.9,
        calibration: str | None = None,
        model: str | None = None,
    ):
        self.quality_target = check_number("quality_target", quality_target, 0, 1, above=True)
        super().__init__(scheduler, calibration, model)
        if not isinstance(scheduler, AdaptiveScheduler):
            raise ValueError(
                f"steps are reduced by a measured curve, and there is none for {type(scheduler).__name__}: take "
                "scheduler=adaptive"
            )

        measured = (scheduler.calibration or self.estimator.calibration).model
        if model is not None and model != measured:
            raise Unusable(
                f"the curve that steps are reduced by was measured on the model {measured:.12}, and this one is "
                f"{model:.12}: sample without it, or calibrate the model",
                "schedule",
            )

    @property
    def config(self) -> dict[str, Any]:
        """What decides the images besides the scheduler, JSON types."""
        return {"quality_target": self.quality_target, **super().config}

    def check(self) -> None:
        """Refuse a scheduler whose steps no curve was measured for.

        Raises:
            Unusable: for timesteps that are not its own, fewer than were measured, or settings that change them.
        """
        self.steps()

    def iterate(
        self, model: Denoiser, x_T: mx.array, *, condition: mx.array | None = None, keys: mx.array | None = None
    ) -> Iterator[StepTrace]:
        """Yield one trace per step; see `StandardSampler.iterate`. Afterwards the scheduler is as it was.

        Raises:
            Unusable: see `check`.
        """
        before, n = self.scheduler.chosen, self.steps()
        self._history.clear()
        try:
            self.scheduler.set_timesteps(n)
            previous = None
            for trace in super().iterate(model, x_T, condition=condition, keys=keys):
                level = node_at(self.scheduler.schedule, trace.timestep).level
                seen = self.estimator.observe(level, trace.x0, previous, last=trace.index + 1 == n)
                previous = level, trace.x0
                quality = self.estimator.quality(seen)
                self._history.append(float(quality.mean()))
                if trace.index + 1 == n:
                    self._final.append(quality)
                    self._expected.append(np.full(len(x_T), quality_of(np.array(self.curve()[n]))))
                yield replace(trace, quality=quality)
        finally:  # also if the caller stops in between
            self.scheduler.set_timesteps(**before)

    @property
    def origin(self) -> str:
        """See `StandardSampler.origin`: of the timesteps that are taken."""
        taken = copy(self.scheduler)  # the scheduler itself stays as it is
        taken.set_timesteps(self.steps())
        return origin_of(taken)

    def curve(self) -> dict[int, float]:
        """Number of steps -> mean RMSE to the converged solution, of the steps that the scheduler takes."""
        if (calibration := self.scheduler.calibration) is None:
            return dict(self.estimator.calibration.curve)
        return {n: steps.score.mean for n, steps in calibration.steps.items()}

    def steps(self) -> int:
        """How many steps are taken: the fewest of the curve that the target allows, else the most of it.

        Raises:
            Unusable: see `check`.
        """
        self._check_scheduler()
        curve, most = self.curve(), len(self.scheduler)
        known = sorted(n for n in curve if n <= most)
        if not known:
            raise Unusable(
                f"sampler=step_reduction knows no error of {most} steps or fewer: take num_steps of at least "
                f"{min(curve)}, or sampler=standard"
            )

        return next((n for n in known if curve[n] <= error_of(self.quality_target)), known[-1])

    def reset_history(self) -> None:
        """Forget the qualities of earlier runs."""
        super().reset_history()
        self._expected: list[np.ndarray] = []

    def report(self) -> dict[str, float]:
        """Also the target, and the mean quality that the curve expects of all images since `reset_history`."""
        if not self._expected:
            return {}
        return {
            **super().report(),
            "details/quality_target": self.quality_target,
            "sampling/expected_quality": float(np.concatenate(self._expected).mean()),
        }

    def _check_scheduler(self) -> None:
        scheduler = self.scheduler
        info = scheduler.get_schedule_info()
        if info["rule"] is None and info["power"] is None:
            at_noise = scheduler.timesteps[0] == scheduler.num_train_timesteps - 1
            cause = "other timesteps were chosen (grid)" if at_noise else "the run begins at an image (init_image)"
            raise Unusable(
                f"sampler=step_reduction takes steps of scheduler=adaptive's own grid, from pure noise, and here "
                f"{cause}: leave that out, or take sampler=standard"
            )
        if scheduler.calibration is not None and not scheduler.calibration.weights_hold:
            raise Unusable(
                f"the curve of sampler=step_reduction was measured with the steps {scheduler.calibration}: take a "
                "guidance_scale near that, or sampler=standard"
            )
        if scheduler.adaptive_threshold < THRESHOLD or info["power"] not in (None, POWER):
            raise Unusable(
                f"the curve of sampler=step_reduction was measured with scheduler.progress_power={POWER:g}, no "
                f"complexity and scheduler.adaptive_threshold={THRESHOLD:g}: leave them so, or take sampler=standard"
            )
