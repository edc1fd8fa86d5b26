"""AdaptiveScheduler: calibrated steps where the model has been measured, else a power grid; each step is checked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_choice, check_number
from ..diffusion.first_prediction import KnownFirst
from ..diffusion.guidance import Guidance
from ..diffusion.guided_model import GuidedModel
from ..diffusion.node import Node
from ..diffusion.schedule import NoiseSchedule
from ..grids.base import Spacing
from ..grids.calibrated import CalibratedGrid, drawn_with, find_schedule
from ..grids.calibrated_schedule import CalibratedSchedule
from ..grids.spacings import PowerGrid
from ..solvers.checked import Checked
from ..types import SchedulerOutput
from .content import bent_power, complexity_of
from .core import SchedulerCore
from .first_evaluation import CHOICES, NETWORK, FirstEvaluation, drawn_by
from .history import History
from .recipe import LEFT_OUT, Recipe, calibrated_steps, checked_calibration
from .recognition import Recognition

log = logging.getLogger(__name__)

STEPS = 50  # where no number of steps is given
POWER = 2.0  # of the grid, where none is given
ANY_DOMAIN = "general"  # whose calibration is taken where nobody says what is drawn


@dataclass(eq=False, repr=False)
class AdaptiveScheduler(SchedulerCore):
    """A recipe: calibrated timesteps with fitted weights, or a power grid with DPM-Solver++(2M); each step is checked.

    Three things adapt.

    To the model and the domain: with a `calibration`, a number of steps that it knows has its timesteps and its
    multistep weights, and another number has a grid resampled from the nearest one.

    To the content, without a calibration: the grid is t_i = (T - 1) (1 - i / N)^power. With
    `set_timesteps(complexity=c)` the power moves from `progress_power` towards 1 (equal steps in t), in proportion to c
    below 0.6: smooth content is decided at higher noise. Without a complexity, and from 0.6 on, the power stays.

    To each image: every step but the first is compared with the first-order step that it contains, and where they
    differ too much the image takes that one; see `solvers.Checked`. It guards against predictions that contradict each
    other, and does not control accuracy.

    What these gain was measured: see docs/notes/tried.md.

    Args:
        num_inference_steps: N in [1, T] to begin with, see `set_timesteps`. None is 50; both are T where that is less.
        adaptive_threshold: Error above which a step falls back to first order, in [0, 1]; 0 is DDIM, except with
            fitted weights.
        progress_power: Power of the grid, in (0, 10]; 1 is uniform, larger puts more steps at low noise.
        min_step_ratio: A bent grid's steps are at least this times those of the plain grid, in (0, 1]; 1 does not bend.
        max_step_ratio: And at most this times, >= 1; 1 does not bend.
        calibration: The steps calibrated for the model, its domain and guidance, or their `content`; None: a power grid
            for all numbers of steps. Left out: a power grid too, until a `DiffusionPipeline` of a model whose
            calibration ships draws with it (see `suit`); a `progress_power` of one's own keeps its grid.
        calibrate: Whether a program may calibrate what nothing fits yet: `auto`, if that is cheap, `always` or `never`;
            see `runs.first_use`. The scheduler itself never does.
        first_evaluation: `network` evaluates the model at every timestep; `stored` takes the first prediction from the
            calibration, where held-out noises say that this is better at equal evaluations, or that which ships for the
            label of each image; `shared` also measures it, once for all images, where a calibration of one's own stores
            one, and the condition or the guidance is another than the calibrated one (see `answering`).
        num_train_timesteps, prediction_type, ...: See `SchedulerCore`.

    Raises:
        ValueError: for a value out of range.
    """

    num_inference_steps: int | None = STEPS
    adaptive_threshold: float = 0.5
    progress_power: float = POWER
    min_step_ratio: float = 0.5
    max_step_ratio: float = 2.0
    _: KW_ONLY
    calibration: Any = LEFT_OUT  # a CalibratedSchedule or None, once it is built
    calibrate: str = "never"
    first_evaluation: str = NETWORK

    def __post_init__(self) -> None:
        self.adaptive_threshold = check_number("adaptive_threshold", self.adaptive_threshold, 0, 1)
        self.progress_power = check_number("progress_power", self.progress_power, 0, 10, above=True)
        self.min_step_ratio = check_number("min_step_ratio", self.min_step_ratio, 0, 1, above=True)
        self.max_step_ratio = check_number("max_step_ratio", self.max_step_ratio, 1)

        check_choice("calibrate", self.calibrate, ("auto", "always", "never"))
        check_choice("first_evaluation", self.first_evaluation, CHOICES)
        self._first = FirstEvaluation(self.first_evaluation)
        self._recognised = Recognition()
        self._suits = True  # whether the calibration is of the model that draws

        # the solver and the configuration are asked for while the core is built
        self._given = given = checked_calibration(self.calibration)
        self.calibration = given if isinstance(given, CalibratedSchedule) else None
        self.recipe = Recipe("no timesteps yet")
        super().__post_init__()

        if self.calibration is not None and self.calibration.num_train_timesteps != self.num_train_timesteps:
            raise ValueError(
                f"the calibration is for {self.calibration.num_train_timesteps} training timesteps, not "
                f"{self.num_train_timesteps}: calibrate this model, or leave calibration out"
            )

        self._complexity: float | None = None
        self._history = History()
        self.set_timesteps()

    def suit(self, model: str, domain: str | None, guidance_scale: float | Guidance | None) -> None:
        """Take the calibration that suits what is drawn next, and begin anew with the steps that were set.

        A calibration that was given stays, at this guidance. One that was left out becomes the shipped one of the
        model, if there is any, unless `progress_power` asks for a power grid of one's own. None stays None.

        Args:
            model: Identity of the model; "" where it does not tell.
            domain: Name of what is drawn; None: unknown, or several domains.
            guidance_scale: Weight of classifier-free guidance, >= 0, or `Guidance`; None where it is not known: that
                of a calibration that was given, else 1.

        Raises:
            ValueError: for a guidance out of range.
        """
        given = self._given
        if isinstance(given, CalibratedSchedule):
            suited = drawn_with(given, model)
            suited = suited if guidance_scale is None else suited.drawn_at(guidance_scale)
            self._suits = model in ("", given.model)
            if not self._suits and not suited.otherwise:
                log.warning("the calibration is of the model %.12s, and %.12s draws with it", given.model, model)
            self.calibration = suited
        elif given is LEFT_OUT and self.progress_power == POWER:
            guidance = 1.0 if guidance_scale is None else guidance_scale
            self.calibration = find_schedule(None, model, domain or ANY_DOMAIN, guidance, num_steps=len(self))
        self._first.forget()
        self.set_timesteps(**self.chosen)

    def answering(self, model: GuidedModel, shape: tuple[int, ...]) -> GuidedModel | KnownFirst:
        """See `SchedulerCore`: unless `first_evaluation` is network, the model with its first prediction known.

        The prediction is that of the calibration, if condition and guidance are those that it was measured with; for
        the shipped model, that which ships for the label of each image, at its guidance. For another condition, or
        another guidance at which the weights hold, the model is evaluated; or the prediction is measured from a few
        fixed noises, once until `suit`, if it may be shared. These evaluations are counted. Where labels are drawn by
        share, only what ships is used, even in a batch of one label: an image does not depend on its batch.

        Args:
            model: The model, with the conditions of the run.
            shape: (B, H, W, C) of the run's states.
        """
        if self.calibration is None or self.recipe.rule is None:
            self._first.tell_unused()
            return model
        self.calibration = calibration = self._recognised(self.calibration, model, shape[1:])
        recipe_of = partial(calibrated_steps, calibration, self.schedule, self.timesteps)
        # `step` limits as this scheduler is configured, a run as its model is
        self._by_hand, self.recipe = recipe_of(self.limit), recipe_of(model.limit)
        if self.first_evaluation == NETWORK:
            return model

        found = None
        if self._suits and model.identity in ("", calibration.model):
            found = self._first.known(calibration, model, shape, len(self))
        if found is None:
            self._first.tell_unused(drawn_by(model), len(self))
            return model

        first, steps = found
        self.recipe = recipe_of(model.limit, steps)
        return KnownFirst(model, first)

    def set_timesteps(
        self, num_inference_steps: int | None = None, complexity: float | None = None, *, timesteps: Any = None
    ) -> None:
        """Choose the grid, and forget the previous run (but not the history).

        Args:
            num_inference_steps: N in [1, T]; None: as given to the constructor.
            complexity: Of the images to come, in [0, 1], e.g. from `estimate_complexity`: bends the power grid;
                calibrated steps suit their domain as they are, and stay.
            timesteps: Instead, one's own timesteps: strictly decreasing, real-valued, in [0, T - 1].

        Raises:
            ValueError: for a value out of range, or timesteps together with one of the others.
        """
        if complexity is not None:
            complexity = check_number("complexity", complexity, 0, 1)
            if timesteps is not None:
                raise ValueError("set_timesteps takes either timesteps or a complexity to bend the grid with, not both")

        asked = {"num_inference_steps": num_inference_steps, "complexity": complexity, "timesteps": timesteps}
        if num_inference_steps is None and timesteps is None:
            given = self.config["num_inference_steps"]
            num_inference_steps = min(STEPS, self.num_train_timesteps) if given in (None, STEPS) else given

        before = self._complexity
        self._complexity = complexity
        try:
            super().set_timesteps(num_inference_steps, timesteps=timesteps)
        except ValueError:
            self._complexity = before
            raise

        self.chosen = asked
        if timesteps is not None:
            unused = "" if self.calibration is None else ", without calibrated weights"
            self.recipe = Recipe(f"DPM-Solver++(2M){unused}")
        elif self.calibration is not None:
            self.calibration = self.calibration.drawn_on(self.schedule)
            self.recipe = calibrated_steps(self.calibration, self.schedule, self.timesteps, self.limit)
        else:
            power = self._power(len(self))
            self.recipe = Recipe(f"timesteps spaced by the power {power:g}", power=power)
        self._by_hand = self.recipe
        self._history = self._history.next_run()

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
        """Advance from one timestep to the next, as `SchedulerCore.step` does.

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
        if not isinstance(quality_estimate, mx.array | np.ndarray | None):
            check_number("quality_estimate", quality_estimate, 0, 1)
        self.recipe = self._by_hand  # a run of a sampler may have known its first prediction
        output = super().step(model_output, timestep, sample, key=key, noise=noise, return_dict=return_dict)
        if quality_estimate is not None:
            self._history.qualities.append(quality_estimate)
        return output

    def estimate_complexity(self, sample: mx.array) -> float:
        """How much of the images' contrast lies between neighbouring pixels.

        c = min(1, sqrt((E[dx^2] + E[dy^2]) / (4 Var))), dx and dy being differences of neighbours, each image and
        channel about its mean: 0 for a constant image, 1 for white noise, whatever the contrast. Meant for clean
        images.

        Args:
            sample: (B, H, W, C), or (H, W, C), at least 2x2 pixels.

        Returns:
            The mean over the batch, in [0, 1]; also recorded for `get_schedule_info`.

        Raises:
            ValueError: for an array of another shape.
        """
        complexity = complexity_of(sample)
        self._history.complexities.append(complexity)
        return complexity

    def get_schedule_info(self) -> dict[str, Any]:
        """The grid and what was seen on it; waits for the arrays it reads.

        Returns:
            num_inference_steps, timesteps (list) and power (None for a calibrated grid or custom timesteps): the grid.
            calibration: Which calibrated steps are taken and what of them, in words; None for other timesteps.
            rule: What made calibrated steps, `resampled` for a number of steps that was not calibrated, else None.
            complexity: What bent the grid, or None.
            avg_error: Mean error of the run so far (see `solvers.Checked`), None before the first second-order step.
            first_order_fraction: Share of these steps that fell back, or None.
            avg_quality: Mean of the quality estimates since `reset_history`. If there was none, 1 - avg_error: how
                well the solver's two orders agree, which is not a statement about the images.
            quality_source: `estimates`, `solver agreement`, or None with avg_quality.
            avg_complexity: Mean of the complexities estimated since `reset_history`; if there was none, that of the
                latest clean predictions, or None.
        """
        return {
            "num_inference_steps": len(self),
            "timesteps": self.timesteps.tolist(),
            "power": self.recipe.power,
            "calibration": None if self.recipe.rule is None else str(self.calibration),
            "rule": self.recipe.rule,
            "complexity": None if self.recipe.power is None else self._complexity,
            **self._history.summary(self.adaptive_threshold),
        }

    @property
    def origin(self) -> str:
        """Where the timesteps of this run come from, in a few words."""
        return self.recipe.origin

    def reset_history(self) -> None:
        """Forget the recorded qualities, complexities and errors; the grid and the solver's memory stay."""
        self._history = History()

    def _record_config(self) -> None:
        super()._record_config()
        if self.first_evaluation == NETWORK:
            del self._config["first_evaluation"]  # as before there was a choice
        if self._given is LEFT_OUT:
            del self._config["calibration"]  # left out, as it was
        elif self.calibration is not None:
            self._config["calibration"] = self.calibration.content()

    @property
    def spacing(self) -> Spacing:
        """See `SchedulerCore`: the calibrated grid, or a power grid."""
        return self._power_grid if self.calibration is None else CalibratedGrid(self.calibration)

    @property
    def solver(self) -> Checked:
        """See `SchedulerCore`: fitted weights, or DPM-Solver++(2M), each step checked."""
        return Checked(self.recipe.solver, self.adaptive_threshold)

    def _power_grid(self, process: NoiseSchedule, n: int, /) -> np.ndarray:
        return PowerGrid(self._power(n))(process, n)

    def _power(self, n: int) -> float:
        """Power of a grid of n steps, bent to the content."""
        if self._complexity is None:
            return self.progress_power
        return bent_power(n, self.progress_power, self._complexity, self.min_step_ratio, self.max_step_ratio)

    def follow(self, trail: Sequence[Node], then: Node, x0: mx.array, error: mx.array | None) -> None:
        """See `SchedulerCore`: what `get_schedule_info` tells of."""
        self._history.last_x0 = x0
        if error is not None:
            self._history.errors.append(error)
