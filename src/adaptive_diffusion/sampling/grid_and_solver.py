"""The contract of a scheduler that a loop can take apart, and where it evaluates the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import mlx.core as mx

from ..diffusion.first_prediction import KnownFirst
from ..diffusion.guidance import Guidance
from ..diffusion.guided_model import GuidedModel
from ..diffusion.limits import Limit
from ..diffusion.node import Node
from ..diffusion.schedule import NoiseSchedule
from ..grids.base import Grid, Spacing
from ..solvers.base import Solver
from ..types import Denoiser, PictureModel, Scheduler


class GridAndSolver(Scheduler, Protocol):
    """A scheduler that a loop can take apart; `SchedulerCore` is one.

    Attributes:
        num_train_timesteps: T.
        prediction_type: What it takes the model to predict.
        schedule: The noise process that it takes the model to be trained with.
    """

    num_train_timesteps: int
    prediction_type: str
    schedule: NoiseSchedule

    @property
    def grid(self) -> Grid:
        """Where a run evaluates the model."""
        ...

    @property
    def solver(self) -> Solver:
        """How a run gets from one timestep to the next."""
        ...

    @property
    def limit(self) -> Limit:
        """What keeps clean predictions in their range."""
        ...

    def guided(
        self, denoiser: Denoiser, condition: mx.array | None = None, guidance_scale: float | Guidance = 1.0, /
    ) -> GuidedModel:
        """A model as this scheduler takes it to be."""
        ...

    def answering(self, model: GuidedModel, shape: tuple[int, ...], /) -> GuidedModel | KnownFirst:
        """Who answers along the grid of a run that begins now, whose states are of a shape (B, H, W, C)."""
        ...

    def fit(self, model: PictureModel, /) -> None:
        """Take over how a model was trained."""
        ...

    def suit(self, model: str, domain: str | None, guidance_scale: float | Guidance, /) -> None:
        """Take what was measured for what is drawn next."""
        ...

    def follow(self, trail: Sequence[Node], then: Node, x0: mx.array, error: mx.array | None, /) -> None:
        """Take note of a step that a loop took."""
        ...


def whole(scheduler: Any) -> GridAndSolver:
    """The scheduler, if it is made of a grid and a solver, so that a loop can take it apart.

    Raises:
        ValueError: if it is not.
    """
    if not all(hasattr(type(scheduler), name) for name in ("grid", "solver", "guided", "follow")):
        raise ValueError(
            "a sampler needs a scheduler that is made of a grid and a solver, such as a SchedulerBase, got "
            f"{type(scheduler).__name__}"
        )
    made: GridAndSolver = scheduler
    return made


def set_timesteps(scheduler: Scheduler, grid: Spacing | None, schedule: NoiseSchedule, n: int) -> None:
    """Begin a run of `n` steps on a grid.

    Args:
        scheduler: Any scheduler; a grid replaces its own spacing.
        grid: Where to evaluate the model; None: the scheduler's own spacing.
        schedule: The noise schedule that the model was trained with.
        n: Number of steps, in [1, T].

    Raises:
        ValueError: for `n` out of range.
    """
    if grid is None:
        scheduler.set_timesteps(n)
    else:
        scheduler.set_timesteps(timesteps=grid(schedule, n))
