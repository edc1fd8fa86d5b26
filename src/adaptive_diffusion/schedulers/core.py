"""SchedulerCore: the conventions of diffusers over a grid and a solver, which see nodes and clean predictions only.

Coefficients are Python floats (float64) from `NoiseSchedule`, applied to MLX arrays, so that a step queues array
operations and never waits for one.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.arrays import at_least_float32
from ..diffusion.checks import check_choice, check_count
from ..diffusion.evaluation import interpreted
from ..diffusion.facts import ModelFacts
from ..diffusion.first_prediction import KnownFirst
from ..diffusion.guidance import Guidance
from ..diffusion.guided_model import GuidedModel
from ..diffusion.limits import Clipped, Limit, unlimited
from ..diffusion.node import CLEAN, Node, nodes_at
from ..diffusion.rng import normal
from ..diffusion.schedule import PREDICTION_TYPES, SCHEDULE_ARGUMENTS, NoiseSchedule
from ..errors import Unusable
from ..grids.base import FixedGrid, Grid, Spacing, custom_timesteps, spaced
from ..grids.diffusers_spacings import Spaced
from ..solvers.base import Memory, Position, Solver
from ..types import Denoiser, PictureModel, SchedulerOutput
from .config import ConfigMixin

log = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class SchedulerCore(ConfigMixin, ABC):
    """A grid and a solver, with the conventions of diffusers. Its arguments are what a model decides.

    Args:
        num_train_timesteps: T, timesteps the model was trained with, >= 2.
        beta_start: First beta, in (0, 1).
        beta_end: Last beta, in [beta_start, 1).
        beta_schedule: `linear`, `scaled_linear` or `squaredcos_cap_v2`.
        trained_betas: (T,) betas that replace the named schedule.
        rescale_betas_zero_snr: See `NoiseSchedule`.
        prediction_type: What the model predicts: `epsilon`, `v_prediction` or `sample` (x0).
        clip_sample: Clip the clean prediction to +-`clip_sample_range`; for images in pixel space.
        clip_sample_range: > 0.

    Attributes:
        timesteps: (N,) float64, decreasing; empty until `set_timesteps`.
        num_inference_steps: N, or None until `set_timesteps`.
        chosen: Arguments of the latest `set_timesteps`; {} before, and where a policy chooses.
        order: Model evaluations per step, 1.
        init_noise_sigma: Standard deviation of x_T, 1.
        source: Where its settings were read, in a word or two; "" for settings that were given.
        may_stop: Whether a step may turn out to be the last one, before all timesteps have come.

    Raises:
        ValueError: for a value out of range.
    """

    num_train_timesteps: int = 1000
    _: KW_ONLY
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: Any = None
    rescale_betas_zero_snr: bool = False
    prediction_type: str = "epsilon"
    clip_sample: bool = True
    clip_sample_range: float = 1.0

    def __post_init__(self) -> None:
        self._record_config()
        self.schedule = NoiseSchedule(**{name: getattr(self, name) for name in SCHEDULE_ARGUMENTS})
        check_choice("prediction_type", self.prediction_type, PREDICTION_TYPES)
        _ = self.solver, Clipped(self.clip_sample_range)  # they refuse values that are out of range

        self.order = 1
        self.init_noise_sigma = 1.0
        self.source, self.may_stop = "", False
        self.num_inference_steps: int | None = None
        self.timesteps = np.empty(0)
        self.chosen: dict[str, Any] = {}
        self._nodes: list[Node] = []
        self._memory: Memory = ()  # of the solver
        self._next = 0  # index of the timestep that is due

    def set_timesteps(self, num_inference_steps: int | None = None, *, timesteps: Any = None) -> None:
        """Choose the grid, and forget the previous run.

        Args:
            num_inference_steps: N in [1, T]; the grid then follows `spacing`.
            timesteps: Instead of N, one's own timesteps: strictly decreasing, real-valued, in [0, T - 1]. The last
                step always leads to the end of the schedule, which is no timestep and not in the list.

        Raises:
            ValueError: for a value out of range, or if not exactly one of the two is given.
        """
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("set_timesteps takes either num_inference_steps or timesteps, and one of them is needed")

        if timesteps is None:
            n = check_count("num_inference_steps", num_inference_steps, 1, self.num_train_timesteps)
            grid = spaced(self.spacing, self.schedule, n)
        else:
            grid = custom_timesteps(timesteps, self.num_train_timesteps)

        self.timesteps, self.num_inference_steps = grid, len(grid)
        self._nodes = [*nodes_at(self.schedule, grid), self._end()]
        self._memory, self._next = (), 0
        self.chosen = {"num_inference_steps": num_inference_steps, "timesteps": timesteps}

    @property
    @abstractmethod
    def solver(self) -> Solver:
        """How a run gets from one timestep to the next."""

    @property
    def spacing(self) -> Spacing:
        """How a number of timesteps is spaced."""
        return Spaced()

    @property
    def grid(self) -> Grid:
        """Where a run evaluates the model: the timesteps that are set.

        Raises:
            ValueError: where none are.
        """
        self._check_begun()
        return FixedGrid(tuple(self._nodes[:-1]))

    @property
    def limit(self) -> Limit:
        """What keeps clean predictions in their range, as configured."""
        return Clipped(self.clip_sample_range) if self.clip_sample else unlimited

    def guided(
        self, denoiser: Denoiser, condition: mx.array | None = None, guidance_scale: float | Guidance = 1.0
    ) -> GuidedModel:
        """A model as this scheduler takes it to be: its noise schedule, prediction type and clipping.

        Args:
            denoiser: The network, perhaps with its guidance. A `GuidedModel` says itself what it is.
            condition: (B, ...) conditions, or None.
            guidance_scale: Weight of classifier-free guidance of a network without, >= 0, or `Guidance`.

        Raises:
            ValueError: for a guidance out of range.
            Unusable: for a `GuidedModel` of another noise process.
        """
        if isinstance(denoiser, GuidedModel):
            if not np.array_equal(denoiser.process.alphas_cumprod, self.schedule.alphas_cumprod):
                raise Unusable(
                    "the model was trained with another noise process than the scheduler has: build the scheduler with "
                    f"{type(self).__name__}(**model.settings), or call scheduler.fit(model)"
                )
            return denoiser if condition is None else denoiser.with_condition(condition)
        return GuidedModel(denoiser, self.schedule, self.prediction_type, self.limit, guidance_scale, condition)

    def answering(self, model: GuidedModel, shape: tuple[int, ...]) -> GuidedModel | KnownFirst:
        """Who answers along the grid of a run that begins now: the model, unless something of it is known already.

        Args:
            model: The model, with the conditions of the run.
            shape: (B, H, W, C) of the run's states.
        """
        return model

    def fit(self, model: PictureModel | GuidedModel) -> None:
        """Take over how a model was trained: its noise schedule and prediction type; latents are not clipped."""
        if isinstance(model, GuidedModel):
            bounded = model.limit is not unlimited
            trained = {**model.process.config, "prediction_type": model.prediction_type}
        else:
            known = ModelFacts.of(model)
            bounded = known.bounded
            trained = dict(known.process.config) if "noise_schedule" in model.metadata else {}
            if known.prediction_type is not None:
                trained["prediction_type"] = known.prediction_type
        if not bounded:
            trained["clip_sample"] = False

        wrong = {k: v for k, v in trained.items() if k in self.config and self.config[k] != v}
        if wrong:
            log.info("the scheduler was set to what the model was trained with: %s", wrong)
            self.reconfigure(**wrong)

    def reconfigure(self, **changes: Any) -> None:
        """Change constructor arguments in place; the steps that were set are kept, all else begins anew.

        Raises:
            ValueError: for a value out of range; nothing has changed then.
        """
        built = type(self).from_config(self.config, **changes)
        built.source = built.source or self.source
        if self.chosen:
            built.set_timesteps(**self.chosen)
        self.__dict__.clear()
        self.__dict__.update(built.__dict__)

    def suit(self, model: str, domain: str | None, guidance_scale: float | Guidance | None) -> None:
        """Take what was measured for what is drawn next, and begin anew with as many steps; here nothing was.

        Args:
            model: Identity of the model; "" where it is not known.
            domain: Name of what is drawn; None: unknown, or several domains.
            guidance_scale: Weight of classifier-free guidance, >= 0, or `Guidance`; None where it is not known.
        """

    @property
    def origin(self) -> str:
        """Where its timesteps come from, in a few words; "" where the configuration says it."""
        return ""

    @property
    def stochastic(self) -> bool:
        """Whether steps add noise, so that x_T alone does not decide the image; the solver says so."""
        return bool(getattr(self.solver, "stochastic", False))

    def scale_model_input(self, sample: mx.array, timestep: Any = None) -> mx.array:
        """What the model is to be fed: the sample as it is."""
        return sample

    def step(
        self,
        model_output: mx.array,
        timestep: Any,
        sample: mx.array,
        *,
        key: mx.array | None = None,
        noise: mx.array | None = None,
        return_dict: bool = False,
    ) -> mx.array | SchedulerOutput:
        """Advance from one timestep to the next.

        Args:
            model_output: (B, H, W, C) prediction of the model at `sample`.
            timestep: The timestep of `sample`, an element of `timesteps`. Going on from another one than is due
                restarts a multistep solver there.
            sample: (B, H, W, C) x_t.
            key: Random key of a stochastic step, (2,) for the batch or (B, 2), one per image.
            noise: Instead of a key, (B, H, W, C) standard normal noise.
            return_dict: Return a `SchedulerOutput` with the clean prediction as well.

        Returns:
            (B, H, W, C) the next sample, of the dtype of `sample`.

        Raises:
            ValueError: for a timestep off the grid, shapes that differ, or a stochastic step without key and noise.
        """
        index = self._locate(timestep)
        if model_output.shape != sample.shape:
            raise ValueError(f"model_output has shape {model_output.shape} and sample {sample.shape}: they must agree")

        self._check_batch(sample.shape)

        x0, eps = interpreted(model_output, sample, self._nodes[index], self.prediction_type, self.limit)

        trail = self._nodes[: index + 1]
        then = self._then(trail, x0)
        at = Position(trail, then, at_least_float32(sample), x0, eps, len(self) - index)
        step = self.solver.step(at, self._memory)
        prev_sample = step.mean
        if step.std > 0:
            prev_sample = prev_sample + step.std * self._noise(sample.shape, key, noise)

        self._memory, self._next = step.memory, index + 1
        self.follow(trail, then, x0, step.error)

        if index + 1 == len(self) and self._nodes[-1] is CLEAN:
            x0 = prev_sample  # the image; a solver may make more of it than the last prediction
        prev_sample = prev_sample.astype(sample.dtype)
        return SchedulerOutput(prev_sample, x0.astype(sample.dtype)) if return_dict else prev_sample

    def follow(self, trail: Sequence[Node], then: Node, x0: mx.array, error: mx.array | None) -> None:
        """Take note of a step, also of one that a loop took on this grid with this solver; here of nothing.

        Args:
            trail: Nodes where the model was evaluated.
            then: Where the step led.
            x0: (B, H, W, C) the clean predictions of the step, or the clean images that it led to.
            error: (B,) what the solver's check said of it, or None.
        """

    def select(self, indices: np.ndarray) -> None:
        """Keep the memory of some images only, when others leave the batch.

        Args:
            indices: Positions in the batch, or a (B,) boolean mask.

        Raises:
            IndexError: for positions that are not in the batch.
        """
        if self._memory:
            keep = mx.array(np.arange(len(self._memory[0]))[np.asarray(indices)])
            self._memory = tuple(array[keep] for array in self._memory)

    def add_noise(self, original_samples: mx.array, noise: mx.array, timesteps: Any) -> mx.array:
        """x_t = alpha x0 + sigma noise, at timesteps in [0, T - 1]: see `NoiseSchedule.add_noise`."""
        return self.schedule.add_noise(original_samples, noise, timesteps)

    def __len__(self) -> int:
        """Number of steps; 0 until `set_timesteps`."""
        return len(self.timesteps)

    def __bool__(self) -> bool:
        return True  # a scheduler without timesteps is still a scheduler

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r:.40}' for k, v in self.config.items())})"

    def _end(self) -> Node:
        """Where the last step leads."""
        return CLEAN

    def _then(self, trail: Sequence[Node], x0: mx.array) -> Node:
        """Where a step leads from the last node of the trail, where the clean predictions are x0."""
        return self._nodes[len(trail)]

    def _check_begun(self) -> None:
        """Refuse to go on without timesteps."""
        if not self._nodes:
            raise ValueError("the scheduler has no timesteps yet: call set_timesteps first")

    def _check_batch(self, shape: tuple[int, ...]) -> None:
        """Refuse images that the solver remembers nothing of, or that it remembers others beside."""
        if self._memory and self._memory[0].shape != shape:
            raise ValueError(
                f"the solver remembers images of shape {self._memory[0].shape}, got {shape}: call select when "
                "images leave the batch, or set_timesteps to begin anew"
            )

    def _locate(self, timestep: Any) -> int:
        """The index of a timestep; one that is not due clears the memory."""
        self._check_begun()
        try:
            t = np.asarray(timestep, np.float64).item()
        except (TypeError, ValueError):
            raise ValueError(f"timestep must be one number for the whole batch, got {str(timestep)[:80]}") from None

        tolerance = max(1e-4, 1e-7 * self.num_train_timesteps)  # timesteps may have passed through float32
        if self._next < len(self) and abs(self.timesteps[self._next] - t) <= tolerance:
            return self._next

        index = int(np.abs(self.timesteps - t).argmin())
        if not abs(self.timesteps[index] - t) <= tolerance:
            raise ValueError(
                f"timestep {t:g} is not one of the {len(self)} timesteps from {self.timesteps[0]:g} to "
                f"{self.timesteps[-1]:g}: pass an element of scheduler.timesteps, not its index"
            )

        self._memory = ()
        return index

    def _noise(self, shape: tuple[int, ...], key: mx.array | None, noise: mx.array | None) -> mx.array:
        if noise is not None and key is None:
            if noise.shape != shape:
                raise ValueError(f"noise must have the shape of the sample, {shape}, got {noise.shape}")
            return noise
        if key is None or noise is not None:
            raise ValueError(f"a step of {type(self).__name__} adds noise here: pass either key or noise to step")
        if key.shape == (2,):
            return mx.random.normal(shape, key=key)
        if key.shape != (shape[0], 2):
            raise ValueError(f"key must have shape (2,), or ({shape[0]}, 2) for {shape[0]} images, got {key.shape}")
        return normal(key, shape[1:])
