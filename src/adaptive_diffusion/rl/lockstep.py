"""Episodes side by side: the images that they want drawn go through the loop together.

An episode is a generator that yields a rollout and is sent what became of it. Rollouts may stand at different nodes and
end at different times; an image does not depend on the images that it is evaluated together with.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import mlx.core as mx
import numpy as np

from ..backend.prepare import check_process
from ..diffusion.evaluation import Denoised, Waiting
from ..diffusion.guidance import Guidance
from ..diffusion.guided_model import GuidedModel
from ..io.progress import may_end
from ..sampling.rollout import Rollout, run
from ..schedulers.core import SchedulerCore


@dataclass(frozen=True, eq=False)
class Drawn:
    """What became of a rollout, and what it cost.

    Attributes:
        x0: (B, H, W, C) clean images, about in [-1, 1], or latents.
        evaluations: Model evaluations per image.
        passes: Passes through the network per image: two for a guided evaluation, one for an unguided one.
        seconds: Seconds of evaluation per image.
        errors: (B,) what the solver's check said, of each step that it checked.
    """

    x0: mx.array
    evaluations: int
    passes: int
    seconds: float
    errors: tuple[mx.array, ...]

    @property
    def states(self) -> np.ndarray:
        """`x0` as a NumPy array."""
        return np.array(self.x0)


R = TypeVar("R")
Episode = Generator[Rollout, Drawn, R]


def run_together(model: GuidedModel, episodes: Sequence[Episode[R]]) -> list[R]:
    """Run to the end and return what each episode returned.

    Args:
        model: The model, the same for all.
        episodes: Generators that have not begun.

    Raises:
        ValueError: in a fork of the process that imported MLX.
    """
    check_process()
    results: dict[int, R] = {}
    drawn: dict[int, Drawn | None] = dict.fromkeys(range(len(episodes)))
    while drawn:
        wanted = {}
        for index, answer in drawn.items():
            try:
                wanted[index] = next(episodes[index]) if answer is None else episodes[index].send(answer)
            except StopIteration as end:
                results[index] = end.value

        drawn = dict(zip(wanted, draw_together(model, list(wanted.values())), strict=True))

    return [results[index] for index in range(len(episodes))]


def draw_together(model: GuidedModel, rollouts: Sequence[Rollout]) -> list[Drawn]:
    """Take rollouts to their end, and tell what each of them cost."""
    timed, seconds = _Timed(model), [0.0] * len(rollouts)
    ends, errors = list(rollouts), [list[mx.array]() for _ in rollouts]
    on_the_way = list(range(len(rollouts)))
    for moved in run(timed, rollouts):
        for index, after in zip(on_the_way, moved, strict=True):
            ends[index] = after
            seconds[index] += timed.seconds
            errors[index] += [] if after.error is None else [after.error]
        on_the_way = [index for index in on_the_way if not ends[index].done]

    passes = [sum(model.passes_at(node, end.guidance) for node in end.trail) for end in ends]
    return [
        Drawn(end.x_t, len(end.trail), passed, spent, tuple(seen))
        for end, passed, spent, seen in zip(ends, passes, seconds, errors, strict=True)
    ]


def drawing_run(
    scheduler: SchedulerCore, x_T: mx.array, rows: np.ndarray | None = None, guidance: Guidance | None = None
) -> Episode[Drawn]:
    """Draw with a deterministic scheduler whose timesteps are set.

    Args:
        scheduler: Grid and solver.
        x_T: (B, H, W, C) standard normal noise.
        rows: (B,) which of the model's conditions apply; None: the first B, or the only one.
        guidance: What guides instead of the model's own guidance; None: that.
    """
    return (yield Rollout.begin(scheduler.grid, scheduler.solver, x_T, rows=rows, guidance=guidance))


class _Timed:
    """A model that measures its evaluations.

    Attributes:
        seconds: Of the latest evaluation, per image.
    """

    def __init__(self, model: GuidedModel):
        self.model, self.seconds = model, 0.0

    def denoise_all(self, waiting: Sequence[Waiting]) -> list[Denoised]:
        """See `Model`."""
        may_end()  # a batch takes long beside a click on Cancel
        start = time.perf_counter()
        denoised = self.model.denoise_all(waiting)
        mx.eval([some.x0 for some in denoised])

        self.seconds = (time.perf_counter() - start) / sum(len(some.rows) for some in waiting)
        return denoised
