"""Several sampling runs side by side: whenever all of them wait for the model, it is evaluated once for all.

A run is a generator that yields images that wait for an evaluation, and is sent what the model says of them. Runs may
stand at different timesteps and end at different times; an image does not depend on the images that it is evaluated
together with.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import mlx.core as mx
import numpy as np

from ..backend.prepare import check_process
from ..diffusion.guided_model import Denoised, Waiting
from ..sampling.rollout import Model, Rollout
from ..sampling.standard import whole
from ..types import Scheduler


class Answer(NamedTuple):
    """What a run is sent.

    Attributes:
        denoised: What the model says of its images.
        seconds: Of the evaluation, this run's share by images.
    """

    denoised: Denoised
    seconds: float


R = TypeVar("R")
Run = Generator[Waiting, Answer, R]


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was drawn and what it cost.

    Attributes:
        states: (B, H, W, C) float32, clean predictions: pictures about in [-1, 1], or latents.
        evaluations: Model evaluations per picture.
        seconds: Seconds per picture.
    """

    states: np.ndarray
    evaluations: int
    seconds: float


def run_together(model: Model, runs: Sequence[Run[R]]) -> list[R]:
    """Run to the end and return what each run returned.

    Args:
        model: The model, the same for all.
        runs: Generators that have not begun.

    Raises:
        ValueError: in a fork of the process that imported MLX.
    """
    check_process()
    waiting: dict[int, Waiting] = {}
    results: dict[int, R] = {}

    def go_on(index: int, answer: Answer | None) -> None:
        try:
            waiting[index] = next(runs[index]) if answer is None else runs[index].send(answer)
        except StopIteration as end:
            waiting.pop(index, None)
            results[index] = end.value

    for index in range(len(runs)):
        go_on(index, None)
    while waiting:
        indices = list(waiting)
        for index, answer in zip(indices, _answers(model, [waiting[i] for i in indices]), strict=True):
            go_on(index, answer)
    return [results[index] for index in range(len(runs))]


def drawing_run(scheduler: Scheduler, x_T: mx.array, rows: np.ndarray | None = None) -> Run[Drawn]:
    """Draw with a deterministic scheduler whose timesteps are set.

    Args:
        scheduler: Grid and solver, of this run alone.
        x_T: (B, H, W, C) standard normal noise.
        rows: (B,) which of the model's conditions apply; None: the first B, or the only one.
    """
    scheduler, seconds = whole(scheduler), 0.0
    rollout = Rollout.begin(scheduler.grid, scheduler.solver, x_T * scheduler.init_noise_sigma, rows=rows)
    while not rollout.done:
        answer = yield rollout.waiting
        rollout = rollout.step(answer.denoised)
        assert rollout.x0 is not None
        scheduler.follow(rollout.trail, rollout.node, rollout.x0, rollout.error)
        seconds += answer.seconds
    return Drawn(np.array(rollout.x0), len(rollout.trail), seconds / len(x_T))


def _answers(model: Model, waiting: Sequence[Waiting]) -> list[Answer]:
    """One evaluation of the model for all that wait."""
    start = time.perf_counter()
    denoised = model.denoise_all(waiting)
    mx.eval([some.x0 for some in denoised])

    counts = [len(some.rows) for some in waiting]
    seconds = (time.perf_counter() - start) / sum(counts)
    return [Answer(some, seconds * count) for some, count in zip(denoised, counts, strict=True)]
