"""StandardSampler: every image takes every step of the schedule."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx
import numpy as np

from ..diffusion.arrays import at_least_float32
from ..diffusion.checks import check_count
from ..diffusion.first_prediction import KnownFirst
from ..diffusion.guided_model import GuidedModel
from ..diffusion.rng import image_keys, normal
from ..io.pixels import resize
from ..schedulers.core import SchedulerCore
from ..types import Denoiser, SampleResult, StepTrace, is_picture_model
from .rollout import Rollout, run

STRIP_PICTURES = 8


def beginning(
    scheduler: SchedulerCore, model: Denoiser, x_T: mx.array, condition: mx.array | None, keys: mx.array | None
) -> tuple[GuidedModel | KnownFirst, Rollout]:
    """A run that begins: who answers along the grid of its scheduler, and the images on it.

    Args:
        scheduler: Grid and solver, with its timesteps set.
        model: The denoiser.
        x_T: (B, H, W, C) standard normal noise, or noisy images at the first timestep.
        condition: (B, ...) conditions, or None.
        keys: (B, 2) random keys, or None.

    Raises:
        ValueError: for what is no x_T, or conditions of another number of images.
    """
    if not isinstance(x_T, mx.array | np.ndarray) or x_T.ndim != 4:
        raise ValueError(f"x_T must be an array of states (B, H, W, C), got {type(x_T).__name__} {np.shape(x_T)}")
    x_T = mx.array(x_T)
    if condition is not None and len(condition) not in (1, len(x_T)):
        raise ValueError(f"there are conditions of {len(condition)} images, and {len(x_T)} are to be drawn")

    answering = scheduler.answering(scheduler.guided(model, condition), x_T.shape)
    return answering, Rollout.begin(scheduler.grid, scheduler.solver, x_T, keys=keys)


def evaluated(model: GuidedModel | KnownFirst, moved: Sequence[Rollout], count: int) -> np.ndarray:
    """(count,) bool, the images of a run that a step evaluated the network on.

    Args:
        model: Who answered.
        moved: The rollouts after the step.
        count: Images of the run.
    """
    asked = [some for some in moved if not (isinstance(model, KnownFirst) and model.known(some.trail[-1]))]
    return np.isin(np.arange(count), np.concatenate([np.array([], np.int64), *(some.rows for some in asked)]))


def origin_of(scheduler: SchedulerCore) -> str:
    """Where settings and timesteps come from, in a few words; "" where the scheduler does not say."""
    return ", ".join(filter(None, (scheduler.source, scheduler.origin)))


class StandardSampler:
    """The plain sampling loop.

    Args:
        scheduler: Grid and solver, with its timesteps set.

    Raises:
        ValueError: for what is no `SchedulerCore`.
    """

    def __init__(self, scheduler: SchedulerCore):
        if not isinstance(scheduler, SchedulerCore):
            raise ValueError(
                "a sampler needs a scheduler that is made of a grid and a solver, such as a SchedulerBase, got "
                f"{type(scheduler).__name__}"
            )
        self.scheduler = scheduler

    def iterate(
        self, model: Denoiser, x_T: mx.array, *, condition: mx.array | None = None, keys: mx.array | None = None
    ) -> Iterator[StepTrace]:
        """Yield one trace per step.

        Args:
            model: The denoiser.
            x_T: (B, H, W, C) standard normal noise.
            condition: (B, ...) conditions, or None.
            keys: (B, 2) uint32, one key per image for the noise of stochastic solvers; None suits deterministic ones.
        """
        answering, rollout = beginning(self.scheduler, model, x_T, condition, keys)
        for index, (after,) in enumerate(run(answering, [rollout])):
            assert after.x0 is not None
            self.scheduler.follow(after.trail, after.node, after.x0, after.error)
            yield StepTrace(index, after.trail[-1].t, after.x0, evaluated(answering, [after], len(x_T)))

    def run(
        self,
        model: Denoiser,
        x_T: mx.array,
        *,
        condition: mx.array | None = None,
        keys: mx.array | None = None,
        progress: Callable[[StepTrace], None] | None = None,
    ) -> SampleResult:
        """Sample to the end; arguments as for `iterate`, `progress` is called after every (synchronised) step."""
        evaluations = np.zeros((), np.int64)  # then (B,)
        timesteps, seconds, strip, known = [], [], [], 0
        x0, start = x_T, time.perf_counter()
        for trace in self.iterate(model, x_T, condition=condition, keys=keys):
            x0 = trace.x0
            mx.eval(x0)
            evaluations = evaluations + trace.active
            known += not evaluations.any()
            timesteps.append(trace.timestep)
            # a copy: a slice would keep the whole batch in memory
            strip.append(np.array(at_least_float32(x0[:STRIP_PICTURES])))
            seconds.append(time.perf_counter() - start)
            if progress is not None:
                progress(trace)
            start = time.perf_counter()

        return SampleResult(x0, evaluations, tuple(timesteps), tuple(seconds), np.stack(strip), known)

    def sample(
        self,
        model: Denoiser,
        batch_size: int = 1,
        image_size: tuple[int, int] = (32, 32),
        seed: int = 0,
        *,
        channels: int = 3,
        condition: mx.array | None = None,
    ) -> mx.array:
        """Draw images from noise, with the model as it was trained, and without guidance unless it has its own.

        A `PictureModel` tells its prediction type, its noise schedule and its size: the scheduler is set to them, as
        `DiffusionPipeline` does, and images are drawn at that size and resized to `image_size`. A `GuidedModel`
        tells as much, and its domain and guidance; each counts where it is known. Any other denoiser is taken to be
        what the scheduler says, without what `suit` took for a model before it.

        Args:
            model: The denoiser.
            batch_size: Images to draw, >= 1.
            image_size: (height, width) of the images, pixels.
            seed: Image i of a seed is the same whatever the batch it is drawn in, up to rounding.
            channels: Image channels, of a model that does not tell.
            condition: (B, ...) conditions, or None.

        Returns:
            (B, H, W, C) float32 images in [-1, 1]; of a model that does not tell its size the clean states as they are.

        Raises:
            ValueError: for a number or a size out of range, or a scheduler without timesteps.
            FloatingPointError: if the model predicts NaN or infinity.
        """
        scheduler, _ = self.scheduler, self.scheduler.grid  # there is none before `set_timesteps`
        size = (check_count("height", image_size[0], 1), check_count("width", image_size[1], 1))
        keys = image_keys(seed, range(check_count("batch_size", batch_size, 1)))
        shape: tuple[int, int, int] | None = None
        decode: Callable[[mx.array], mx.array] | None = None
        if is_picture_model(model):
            scheduler.fit(model)
            scheduler.suit(model.identity, None, 1.0)
            shape, decode = model.state_shape, model.decode
        elif isinstance(model, GuidedModel):
            scheduler.fit(model)
            model = model if condition is not None else model.of_images(seed, batch_size)
            drawn = scheduler.guided(model, condition)
            scheduler.suit(drawn.identity, drawn.domain or None, drawn.guidance_in_effect)
            shape, decode = drawn.state_shape, drawn.decode
        else:
            scheduler.suit("", None, None)  # what was measured of an earlier model is not of this one

        x0 = self.run(model, normal(keys, shape or (*size, channels)), condition=condition, keys=keys).images
        if not mx.isfinite(x0).all().item():
            raise FloatingPointError("the images hold NaN or infinity, as the model predicted it")
        if shape is None:
            return x0

        images = x0 if decode is None else decode(x0)
        if images.shape[1:3] != size:
            images = mx.array(resize(np.array(images), size))
        return mx.clip(images, -1, 1)

    @property
    def origin(self) -> str:
        """Where settings and timesteps come from, see `origin_of`."""
        return origin_of(self.scheduler)

    def check(self) -> None:
        """Before a run, once the scheduler has its timesteps: refuse those that the sampler cannot go along.

        Raises:
            ValueError: saying why; here for none.
        """

    def report(self) -> dict[str, float]:
        """What the sampler itself has to say of the images it drew, as metrics of the run; here nothing."""
        return {}
