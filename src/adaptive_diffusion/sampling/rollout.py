"""The loop: images on their way from noise, wherever their grids lead and whatever solvers take them there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import mlx.core as mx
import numpy as np

from ..diffusion.arrays import at_least_float32
from ..diffusion.checks import check_count
from ..diffusion.evaluation import Denoised, Model, Waiting
from ..diffusion.guidance import Guidance
from ..diffusion.guided_model import GuidedModel
from ..diffusion.limits import Limit
from ..diffusion.node import CLEAN, Node
from ..diffusion.rng import normal, step_keys
from ..diffusion.schedule import NoiseSchedule
from ..grids.base import Grid, GridMemory
from ..solvers.base import Memory, Position, Solver


@dataclass(frozen=True, eq=False)
class Rollout:
    """Images that share a grid and a solver, and stand at the same node.

    It never changes: a step gives another one, so that what was seen at a node can be taken another way as well.

    Attributes:
        rows: (b,) which images of the run they are.
        x_t: (b, H, W, C) noisy images at `node`; clean ones at the end.
        grid: Where the model is evaluated.
        solver: How the images get there.
        node: Where they wait for an evaluation; CLEAN at the end.
        trail: Nodes where they were evaluated.
        x0: (b, H, W, C) their latest clean predictions, and at the end the clean images; None at the beginning.
        keys: (b, 2) random keys, one per image, for solvers that add noise; or None.
        memory: What the solver remembers.
        grid_memory: What the grid remembers.
        error: (b,) what the solver's check said of the latest step, or None.
        guidance: What guides them instead of the model's own guidance; None: that.
    """

    rows: np.ndarray
    x_t: mx.array
    grid: Grid
    solver: Solver
    node: Node
    trail: tuple[Node, ...] = ()
    x0: mx.array | None = None
    keys: mx.array | None = None
    memory: Memory = ()
    grid_memory: GridMemory = ()
    error: mx.array | None = None
    guidance: Guidance | None = None

    @classmethod
    def begin(
        cls,
        grid: Grid,
        solver: Solver,
        x_t: mx.array,
        *,
        rows: np.ndarray | None = None,
        keys: mx.array | None = None,
        guidance: Guidance | None = None,
    ) -> Self:
        """Images at the beginning of a grid.

        Args:
            grid: Where the model is to be evaluated.
            solver: How to get there.
            x_t: (b, H, W, C) standard normal noise, or noisy images at the grid's first node.
            rows: (b,) which images of the run they are; None: 0 to b - 1.
            keys: (b, 2) random keys, one per image; None suits deterministic solvers.
            guidance: What guides them instead of the model's own guidance; None: that.
        """
        node, memory = grid.next((), None, ())
        rows = np.arange(len(x_t)) if rows is None else rows
        return cls(rows, x_t, grid, solver, node, keys=keys, grid_memory=memory, guidance=guidance)

    @property
    def done(self) -> bool:
        """Whether the images are clean."""
        return self.node.clean

    @property
    def waiting(self) -> Waiting:
        """What is to be evaluated next."""
        return Waiting(self.x_t, self.node, self.rows, self.guidance)

    def step(self, denoised: Denoised) -> Rollout:
        """The same images one step further, now that the model has been evaluated at `node`.

        Raises:
            ValueError: for a solver that adds noise, without keys.
        """
        trail, (x0, eps) = (*self.trail, self.node), denoised
        then, grid_memory = self.grid.next(trail, x0, self.grid_memory)
        left = None if self.grid.steps is None else self.grid.steps - len(self.trail)

        step = self.solver.step(Position(trail, then, at_least_float32(self.x_t), x0, eps, left), self.memory)
        x_t = step.mean
        if step.std > 0:
            x_t = x_t + step.std * self._noise(x_t.shape[1:])

        return replace(
            self,
            x_t=x_t.astype(self.x_t.dtype),
            node=then,
            trail=trail,
            x0=(x_t if then.clean else x0).astype(self.x_t.dtype),
            memory=step.memory,
            grid_memory=grid_memory,
            error=step.error,
        )

    def select(self, indices: np.ndarray) -> Rollout:
        """Some of the images.

        Args:
            indices: Their positions in `rows`, or a (b,) boolean mask.
        """
        indices = np.flatnonzero(indices) if np.asarray(indices).dtype == bool else np.asarray(indices)
        at = mx.array(indices)
        return replace(
            self,
            rows=self.rows[indices],
            x_t=self.x_t[at],
            x0=None if self.x0 is None else self.x0[at],
            keys=None if self.keys is None else self.keys[at],
            memory=tuple(array[at] for array in self.memory),
            grid_memory=tuple(array[at] for array in self.grid_memory),
            error=None if self.error is None else self.error[at],
        )

    def go_on(self, grid: Grid, solver: Solver, memory: Memory = ()) -> Rollout:
        """The same images, from where they stand on another grid, with another solver.

        Args:
            grid: Its nodes begin with those of the trail, and `node`.
            solver: The solver.
            memory: What it is to remember.
        """
        return replace(self, grid=grid, solver=solver, memory=memory, grid_memory=())

    def end(self, images: mx.array) -> Rollout:
        """The same images at their end: (b, H, W, C) clean images instead of what they would become."""
        return replace(self, x_t=images, x0=images, node=CLEAN)

    def _noise(self, shape: tuple[int, ...]) -> mx.array:
        if self.keys is None:
            raise ValueError(
                f"{type(self.solver).__name__} adds noise: a run with it needs a random key for each image"
            )
        return normal(step_keys(self.keys, len(self.trail)), shape)


Decide = Callable[[Rollout, Denoised, Rollout], Iterable[Rollout]]
"""What becomes of images after a step: (before, what the model said, after) -> rollouts that go on, or are at their
end. They share the images of `after` out among themselves."""


def run(model: Model, rollouts: Iterable[Rollout], decide: Decide | None = None) -> Iterator[list[Rollout]]:
    """Take images to their end; whenever all that are left wait for the model, it is evaluated once for all.

    Rollouts may stand at different nodes and end at different times. An image does not depend on those it is evaluated
    together with, up to rounding.

    Args:
        model: The model.
        rollouts: Images at the beginning of their grids, or further on; all of one shape.
        decide: Stops images, or sends them another way; None: all take all steps.

    Yields:
        After each evaluation the rollouts that took part in it, one step further.
    """
    waiting = [rollout for rollout in rollouts if not rollout.done]
    while waiting:
        moved: list[Rollout] = []
        answers = model.denoise_all([rollout.waiting for rollout in waiting])
        for before, denoised in zip(waiting, answers, strict=True):
            after = before.step(denoised)
            moved += [after] if decide is None else decide(before, denoised, after)

        mx.async_eval([rollout.x_t for rollout in moved])
        yield moved
        waiting = [rollout for rollout in moved if not rollout.done]


def finished(model: Model, rollouts: Iterable[Rollout], decide: Decide | None = None) -> mx.array:
    """(B, H, W, C) clean images of a whole run, in the order of their rows.

    Args:
        model: The model.
        rollouts: Images whose rows are 0 to B - 1.
        decide: See `run`.
    """
    rollouts = list(rollouts)
    done = [rollout for rollout in rollouts if rollout.done]
    for moved in run(model, rollouts, decide):
        mx.eval([rollout.x_t for rollout in moved])
        done += [rollout for rollout in moved if rollout.done]

    order = np.argsort(np.concatenate([rollout.rows for rollout in done]))
    return mx.concatenate([rollout.x_t for rollout in done])[mx.array(order)]


@dataclass(frozen=True, eq=False)
class InBatches:
    """A model that is evaluated on a limited number of images at a time.

    Args:
        model: The model.
        batch_size: Images per evaluation, >= 1.
        progress: Called with the number of images after each evaluation, once that is done.

    Raises:
        ValueError: for a batch size out of range.
    """

    model: GuidedModel
    batch_size: int = 16
    progress: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size, 1)

    @property
    def process(self) -> NoiseSchedule:
        """The noise process of the model."""
        return self.model.process

    @property
    def limit(self) -> Limit:
        """What keeps clean predictions in the range of the data."""
        return self.model.limit

    def denoise_all(self, waiting: Sequence[Waiting]) -> list[Denoised]:
        """See `Model`."""
        return [self.denoise(*some) for some in waiting]

    def denoise(self, x_t: mx.array, node: Node, rows: np.ndarray, guidance: Guidance | None = None) -> Denoised:
        """See `GuidedModel.denoise`; with guidance instead of the model's, unless it is None."""
        batches: list[Denoised] = []
        for first in range(0, len(rows), self.batch_size):
            some = slice(first, first + self.batch_size)
            denoised = self.model.denoise_all([Waiting(x_t[some], node, rows[some], guidance)])[0]
            mx.eval(denoised.x0)
            batches.append(denoised)
            if self.progress is not None:
                self.progress(len(denoised.x0))

        return Denoised(mx.concatenate([some.x0 for some in batches]), mx.concatenate([some.eps for some in batches]))
