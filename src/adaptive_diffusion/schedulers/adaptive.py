"""AdaptiveScheduler: calibrated steps where the model has been measured, else a power grid; each step is checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_number
from ..diffusion.node import Node
from ..grids.calibrated import CalibratedGrid, find_schedule
from ..grids.calibrated_schedule import CalibratedSchedule, schedule_from
from ..grids.grids import PowerGrid, bounded_power
from ..solvers.checked import Checked
from ..solvers.dpm_solver import DPMSolver
from ..solvers.fitted import Fitted, levels_of, multistep_rows
from ..types import SchedulerOutput
from .classes import DPMSolverScheduler

log = logging.getLogger(__name__)

DETAILED = 0.6  # complexity from which on the plain grid is kept
POWER = 2.0  # of the grid, where none is given
ANY_DOMAIN = "general"  # whose calibration is taken where nobody says what is drawn


class LeftOut(Enum):
    """An argument that was left out, where None means something else."""

    LEFT_OUT = "left out"


LEFT_OUT: Final = LeftOut.LEFT_OUT


class _Chosen(NamedTuple):
    """How a run's timesteps came about: the power of their grid, or the calibrated steps, their rule and weights."""

    power: float | None = None
    rule: str | None = None
    rows: np.ndarray | None = None
    nearest: int | None = None  # calibrated number of steps that they were resampled from


_OTHER = _Chosen()  # one's own timesteps


class AdaptiveScheduler(DPMSolverScheduler):
    """The steps that were calibrated for the model, or DPM-Solver++(2M) on t_i = (T - 1) (1 - i / N)^progress_power.

    Three things adapt.

    To the model and the domain: with a `calibration`, a number of steps that it knows has its timesteps and its
    multistep weights (see `fitting`), and another number has a grid resampled from the nearest one.

    To the content, without a calibration: with `set_timesteps(complexity=c)` the power moves from `progress_power`
    towards 1 (equal steps in t), in proportion to c below 0.6: smooth content is decided at higher noise. Without a
    complexity, and from 0.6 on, the grid is the plain one. On Gaussian models of pictures with power 1 / f^a, a = 2 to
    4, each with its own complexity, that took 3 to 37 % off the error of 5 to 10 steps; with the pixel covariances of
    32x32 portraits, landscapes and mixed pictures 18 to 25 %, 3 to 9 % at 20 steps, and at 50 it added 12 to 15 % to an
    error 20 times smaller.

    And to each picture: every step but the first compares itself with the first-order step it contains:
    E = RMS(x' - x_1st) / (alpha' (RMS(D) + RMS(D_prev)) + sigma'), D and D_prev being this and the previous clean
    prediction, so that what is buried in noise counts little. Where E > `adaptive_threshold` the step is taken at first
    order. For DPM-Solver++(2M) E is at most h / (2 h_prev) in log-SNR steps, and reaches that only if successive
    predictions contradict each other (D = -D_prev) at low noise. With 3 to 200 steps of the Gaussian models it stayed
    below 0.22, and with 5 and more calibrated steps of the shipped model below 0.35 (8 noises a domain), so that the
    default 0.5 leaves the solver as it is; with 4, steps of some abstract pictures fall back. It guards against
    predictions that contradict each other, and is no control of accuracy.

    Args:
        num_train_timesteps: T, timesteps the model was trained with, >= 2.
        num_inference_steps: N in [1, T] to begin with; `set_timesteps` changes it.
        adaptive_threshold: E above which a step falls back to first order, in [0, 1]; 0 is DDIM.
        progress_power: Power of the grid, in (0, 10]; 1 is uniform, larger puts more steps at low noise.
        min_step_ratio: A bent grid's steps are at least this times those of the plain grid, in (0, 1]; 1 does not bend.
        max_step_ratio: And at most this times, >= 1; 1 does not bend.
        calibration: The steps calibrated for the model, its domain and guidance, or their `content`; None: a power grid
            for all numbers of steps. Left out: a power grid too, until a `DiffusionPipeline` of a model whose
            calibration ships draws with it (see `suit`); a `progress_power` of one's own keeps its grid.
        prediction_type: `epsilon`, `v_prediction` or `sample`.
        beta_start: First beta, in (0, 1).
        beta_end: Last beta, in [beta_start, 1).
        beta_schedule: `linear`, `scaled_linear` or `squaredcos_cap_v2`.
        trained_betas: (T,) betas that replace the named schedule.
        rescale_betas_zero_snr: See `NoiseSchedule`.
        clip_sample: Clip the clean prediction to +-`clip_sample_range`; for pictures in pixel space.
        clip_sample_range: > 0.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        num_inference_steps: int = 50,
        adaptive_threshold: float = 0.5,
        progress_power: float = POWER,
        min_step_ratio: float = 0.5,
        max_step_ratio: float = 2.0,
        *,
        calibration: CalibratedSchedule | Mapping[str, Any] | LeftOut | None = LEFT_OUT,
        prediction_type: str = "epsilon",
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Any = None,
        rescale_betas_zero_snr: bool = False,
        clip_sample: bool = True,
        clip_sample_range: float = 1.0,
    ):
        self.num_inference_steps = num_inference_steps
        self.adaptive_threshold = check_number("adaptive_threshold", adaptive_threshold, 0, 1)
        self.progress_power = check_number("progress_power", progress_power, 0, 10, above=True)
        self.min_step_ratio = check_number("min_step_ratio", min_step_ratio, 0, 1, above=True)
        self.max_step_ratio = check_number("max_step_ratio", max_step_ratio, 1)
        if isinstance(calibration, Mapping):
            try:
                calibration = schedule_from(calibration)
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"calibration is no calibrated schedule: {error!r}") from None
        if not isinstance(calibration, CalibratedSchedule | LeftOut | None):
            raise ValueError(
                f"calibration must be a calibrated schedule, or None for a power grid, got {calibration!r}"
            )
        self._given = calibration
        self.calibration = calibration if isinstance(calibration, CalibratedSchedule) else None
        super().__init__(
            num_train_timesteps,
            prediction_type=prediction_type,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=trained_betas,
            rescale_betas_zero_snr=rescale_betas_zero_snr,
            clip_sample=clip_sample,
            clip_sample_range=clip_sample_range,
        )
        if self.calibration is not None and self.calibration.num_train_timesteps != num_train_timesteps:
            raise ValueError(
                f"the calibration is for {self.calibration.num_train_timesteps} training timesteps, not "
                f"{num_train_timesteps}: calibrate this model, or leave calibration out"
            )
        self._complexity: float | None = None
        self._chosen = _OTHER
        self.reset_history()
        self.set_timesteps()

    def suit(self, model: str, domain: str | None, guidance_scale: float) -> None:
        """Before `set_timesteps`: take the calibration that suits what is drawn next.

        A calibration that was given stays, at this guidance. One that was left out becomes the shipped one of the
        model, if there is any, unless `progress_power` asks for a power grid of one's own. None stays None.

        Args:
            model: Identity of the model; "" where it does not tell.
            domain: Name of what is drawn; None: unknown, or several domains.
            guidance_scale: Weight of classifier-free guidance, >= 0.

        Raises:
            ValueError: for a guidance out of range.
        """
        given = self._given
        if isinstance(given, CalibratedSchedule):
            if model not in ("", given.model):
                log.warning("the calibration is of the model %.12s, and %.12s draws with it", given.model, model)
            self.calibration = given.drawn_at(guidance_scale)
        elif given is LEFT_OUT and self.progress_power == POWER:
            self.calibration = find_schedule(None, model, domain or ANY_DOMAIN, guidance_scale)

    def set_timesteps(
        self, num_inference_steps: int | None = None, complexity: float | None = None, *, timesteps: Any = None
    ) -> None:
        """Choose the grid, and forget the previous run (but not the history).

        Args:
            num_inference_steps: N in [1, T]; None: as given to the constructor.
            complexity: Of the pictures to come, in [0, 1], e.g. from `estimate_complexity`: bends the power grid;
                calibrated steps suit their domain as they are, and stay.
            timesteps: Instead, one's own timesteps: strictly decreasing, real-valued, in [0, T - 1].

        Raises:
            ValueError: for a value out of range, or timesteps together with one of the others.
        """
        if complexity is not None:
            complexity = check_number("complexity", complexity, 0, 1)
            if timesteps is not None:
                raise ValueError("set_timesteps takes either timesteps or a complexity to bend the grid with, not both")
        if num_inference_steps is None and timesteps is None:
            num_inference_steps = self.config["num_inference_steps"]
        before = self._complexity, self._chosen
        self._complexity, self._chosen = complexity, _OTHER
        try:
            super().set_timesteps(num_inference_steps, timesteps=timesteps)
        except ValueError:
            self._complexity, self._chosen = before
            raise
        self._errors: list[mx.array] = []
        self._last_x0: mx.array | None = None

    def step(
        self,
        model_output: mx.array,
        timestep: Any,
        sample: mx.array,
        quality_estimate: float | mx.array | np.ndarray | None = None,
        *,
        key: mx.array | None = None,
        noise: mx.array | None = None,
        return_dict: bool = False,
    ) -> mx.array | SchedulerOutput:
        """Advance from one timestep to the next, as `SchedulerBase.step` does.

        Args:
            model_output: (B, H, W, C) prediction of the model at `sample`.
            timestep: The timestep of `sample`, an element of `timesteps`.
            sample: (B, H, W, C) x_t.
            quality_estimate: The caller's estimate in [0, 1], a number or (B,). It is recorded for `get_schedule_info`
                and does not change the step.
            key: Not needed: the step is deterministic.
            noise: Not needed.
            return_dict: Return a `SchedulerOutput` with the clean prediction as well.

        Returns:
            (B, H, W, C) the next sample.

        Raises:
            ValueError: for a timestep off the grid, or shapes that differ.
        """
        if isinstance(quality_estimate, (int, float)):
            check_number("quality_estimate", quality_estimate, 0, 1)
        output = super().step(model_output, timestep, sample, key=key, noise=noise, return_dict=return_dict)
        if quality_estimate is not None:
            self._qualities.append(quality_estimate)
        return output

    def estimate_complexity(self, sample: mx.array) -> float:
        """How much of the pictures' contrast lies between neighbouring pixels.

        c = min(1, sqrt((E[dx^2] + E[dy^2]) / (4 Var))), dx and dy being differences of neighbours, each picture and
        channel about its mean: 0 for a constant picture, 1 for white noise, whatever the contrast. The medians of
        32x32 landscapes, portraits, mixed pictures and textures are 0.31, 0.38, 0.42 and 0.62. Meant for clean ones.

        Args:
            sample: (B, H, W, C), or (H, W, C), at least 2x2 pixels.

        Returns:
            The mean over the batch, in [0, 1]; also recorded for `get_schedule_info`.

        Raises:
            ValueError: for an array of another shape.
        """
        complexity = _complexity(sample)
        self._complexities.append(complexity)
        return complexity

    def get_schedule_info(self) -> dict[str, Any]:
        """The grid and what was seen on it; waits for the arrays it reads.

        Returns:
            num_inference_steps, timesteps (list) and power (None for a calibrated grid or custom timesteps): the grid.
            calibration: Which calibrated steps are taken and what of them, in words; None for other timesteps.
            rule: What made calibrated steps, `resampled` for a number of steps that was not calibrated, else None.
            complexity: What bent the grid, or None.
            avg_error: Mean E of the run so far (see the class), None before the first second-order step.
            first_order_fraction: Share of these steps that fell back, or None.
            avg_quality: Mean of the quality estimates since `reset_history`. If there was none, 1 - avg_error: how
                well the solver's two orders agree, which is not a statement about the pictures.
            quality_source: `estimates`, `solver agreement`, or None with avg_quality.
            avg_complexity: Mean of the complexities estimated since `reset_history`; if there was none, that of the
                latest clean predictions, or None.
        """
        errors = np.concatenate([np.asarray(error) for error in self._errors]) if self._errors else None
        quality, source = None, None
        if self._qualities:
            quality, source = float(np.mean([np.mean(np.asarray(q)) for q in self._qualities])), "estimates"
        elif errors is not None:
            quality, source = max(0.0, 1 - float(errors.mean())), "solver agreement"
        complexity = None
        if self._complexities:
            complexity = float(np.mean(self._complexities))
        elif self._last_x0 is not None:
            complexity = _complexity(self._last_x0)
        return {
            "num_inference_steps": len(self),
            "timesteps": self.timesteps.tolist(),
            "power": self._chosen.power,
            "calibration": None if self._chosen.rule is None else str(self.calibration),
            "rule": self._chosen.rule,
            "complexity": self._complexity,
            "avg_error": None if errors is None else float(errors.mean()),
            "first_order_fraction": None if errors is None else float((errors > self.adaptive_threshold).mean()),
            "avg_quality": quality,
            "quality_source": source,
            "avg_complexity": complexity,
        }

    @property
    def origin(self) -> str:
        """Where the timesteps of this run come from, in a few words."""
        power, rule, _, nearest = self._chosen
        if nearest is not None:
            return f"resampled from {nearest} steps {self.calibration}"
        if rule is not None:
            return f"{self.calibration}: {rule}"
        if power is not None:
            return f"power grid {power:g}"
        return "given timesteps" if self.calibration is None else "given timesteps, without calibrated weights"

    def reset_history(self) -> None:
        """Forget the recorded qualities, complexities and errors; the grid and the solver's memory stay."""
        self._qualities: list[Any] = []
        self._complexities: list[float] = []
        self._errors = []
        self._last_x0 = None

    def _record_config(self) -> None:
        super()._record_config()
        if self._given is LEFT_OUT:
            del self._config["calibration"]  # left out, as it was
        elif self.calibration is not None:
            self._config["calibration"] = self.calibration.content()

    def _grid(self, n: int) -> np.ndarray:
        if self.calibration is not None:
            return self._calibrated_grid(self.calibration, n)
        power = self.progress_power
        if self._complexity is not None:
            target = 1 + (self.progress_power - 1) * min(1.0, self._complexity / DETAILED)
            power = bounded_power(n, self.progress_power, target, self.min_step_ratio, self.max_step_ratio)
        self._chosen = _Chosen(power=power)
        return PowerGrid(power)(self.schedule, n)

    def _calibrated_grid(self, calibration: CalibratedSchedule, n: int) -> np.ndarray:
        grids, known = CalibratedGrid(calibration), calibration.used(n)
        grid = grids(self.schedule, n)
        if known is None:
            self._chosen = _Chosen(rule="resampled", nearest=grids.nearest(n))
            return grid
        rows = None
        if known.corrections is not None:
            rows = multistep_rows(levels_of(self.schedule, grid), np.array(known.corrections))
        self._chosen = _Chosen(rule=known.rule, rows=rows)
        return grid

    @property
    def solver(self) -> Checked:
        """See `SchedulerBase`: calibrated weights, or DPM-Solver++(2M), each step checked."""
        plain, rows = DPMSolver(), self._chosen.rows
        return Checked(plain if rows is None else Fitted(rows, self.limit, plain), self.adaptive_threshold)

    def follow(self, trail: Sequence[Node], then: Node, x0: mx.array, error: mx.array | None) -> None:
        """See `SchedulerBase`: what `get_schedule_info` tells of."""
        self._last_x0 = x0
        if error is not None:
            self._errors.append(error)


def _complexity(sample: mx.array) -> float:
    x = sample[None] if sample.ndim == 3 else sample
    if x.ndim != 4 or min(x.shape[1:3]) < 2 or not x.size:
        raise ValueError(f"complexity needs pictures of shape (B, H, W, C), at least 2x2 pixels, got {sample.shape}")
    x = x.astype(mx.float32)
    contrast = mx.mean(mx.var(x, axis=(1, 2)), axis=-1)
    dy, dx = x[:, 1:] - x[:, :-1], x[:, :, 1:] - x[:, :, :-1]
    edges = mx.mean(dy * dy, axis=(1, 2, 3)) + mx.mean(dx * dx, axis=(1, 2, 3))
    # the floor, far below one grey level, keeps a constant picture's rounding errors from counting as detail
    return float(np.asarray(mx.mean(mx.minimum(mx.sqrt(edges / (4 * contrast + 1e-8)), 1))))
