"""Several sampling runs side by side: whenever all of them wait for the model, it is evaluated once for all.

A run is a generator that yields what it wants predicted and is sent the prediction. Runs may stand at different
timesteps and end at different times; a picture does not depend on those it is evaluated together with.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import mlx.core as mx
import numpy as np

from ..backend import check_process
from ..diffusion.guided_model import interpreted
from ..sampling.rollout import Rollout
from ..sampling.standard import whole
from ..types import Denoiser, Scheduler


class Request(NamedTuple):
    """What a run wants predicted.

    Attributes:
        x_t: (B, H, W, C) noisy pictures.
        timestep: Of all of them, in [0, T - 1].
        condition: (B, ...) what each picture is conditioned on, or None.
    """

    x_t: mx.array
    timestep: float
    condition: mx.array | None


class Answer(NamedTuple):
    """What it is sent.

    Attributes:
        prediction: (B, H, W, C) of the model.
        seconds: Of the evaluation, this run's share by pictures.
    """

    prediction: mx.array
    seconds: float


R = TypeVar("R")
Run = Generator[Request, Answer, R]


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


def run_together(denoiser: Denoiser, runs: Sequence[Run[R]]) -> list[R]:
    """Run to the end and return what each run returned.

    Args:
        denoiser: The network with its guidance, the same for all.
        runs: Generators that have not begun.

    Raises:
        ValueError: in a fork of the process that imported MLX.
    """
    check_process()
    waiting: dict[int, Request] = {}
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
        for index, answer in zip(indices, _answers(denoiser, [waiting[i] for i in indices]), strict=True):
            go_on(index, answer)
    return [results[index] for index in range(len(runs))]


def drawing_run(scheduler: Scheduler, x_T: mx.array, condition: mx.array | None = None) -> Run[Drawn]:
    """Draw with a deterministic scheduler whose timesteps are set.

    Args:
        scheduler: Grid and solver, of this run alone.
        x_T: (B, H, W, C) standard normal noise.
        condition: (B, ...) conditions, or None.
    """
    scheduler, seconds = whole(scheduler), 0.0
    rollout = Rollout.begin(scheduler.grid, scheduler.solver, x_T * scheduler.init_noise_sigma)
    while not rollout.done:
        answer = yield Request(rollout.x_t, rollout.node.t, condition)
        facts = (scheduler.prediction_type, scheduler.limit)
        rollout = rollout.step(interpreted(answer.prediction, rollout.x_t, rollout.node, *facts))
        assert rollout.x0 is not None
        scheduler.follow(rollout.trail, rollout.node, rollout.x0, rollout.error)
        seconds += answer.seconds
    return Drawn(np.array(rollout.x0), len(rollout.trail), seconds / len(x_T))


def _answers(denoiser: Denoiser, requests: Sequence[Request]) -> list[Answer]:
    """One evaluation of the model for all requests."""
    start = time.perf_counter()
    counts = [len(request.x_t) for request in requests]
    t = mx.array(np.repeat([request.timestep for request in requests], counts).astype(np.float32))
    conditions = [request.condition for request in requests if request.condition is not None]
    condition = mx.concatenate(conditions) if conditions else None
    prediction = denoiser(mx.concatenate([request.x_t for request in requests]), t, condition)
    mx.eval(prediction)
    seconds = (time.perf_counter() - start) / sum(counts)
    parts = mx.split(prediction, np.cumsum(counts)[:-1].tolist())
    return [Answer(part, seconds * count) for part, count in zip(parts, counts, strict=True)]
