"""The model's converged solution: where its ODE leads from given noises, whatever the solver and the grid."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.guided_model import GuidedModel
from ..diffusion.limits import Clipped, unlimited
from ..diffusion.schedule import NoiseSchedule
from ..grids.base import FixedGrid
from ..grids.spacings import BlendedGrid
from ..io.array_file import read_arrays
from ..io.files import atomic_path
from ..io.locks import in_turn
from ..solvers.ipndm import IPNDM
from .rollout import Rollout, run

FIRST_STEPS = 64
MOST_STEPS = 1024
CHECKED = 16  # images that are solved with twice the steps as well
TOLERANCE = 0.002  # RMSE in [-1, 1]; 0.25 of 255 grey levels
CACHE_VERSION = (
    2  # raised when a change of the code changes the solutions, so that those of a cache are not taken for them
)


@dataclass(frozen=True, eq=False)
class Converged:
    """The deterministic solution from some noises, and how far it is from converged.

    Attributes:
        images: (N, H, W, C) float32 in [-1, 1], or latents.
        finer: (M, H, W, C) the first M <= N of them with twice the steps: any distance between the two tells what the
            number of steps still contributes to that distance.
        steps: Steps of `images`.
    """

    images: np.ndarray
    finer: np.ndarray
    steps: int

    @property
    def change(self) -> float:
        """Mean RMSE between `finer` and the same images of `images`."""
        return float(paired_rmse(self.images[: len(self.finer)], self.finer).mean())


def paired_rmse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) float64 root mean square difference of each image of `a`, (N, H, W, C), from that of `b`."""
    difference = a.astype(np.float64) - b
    return np.asarray(np.sqrt(np.mean(difference**2, axis=(1, 2, 3))))


def converged_pictures(
    model: GuidedModel,
    x_T: mx.array,
    *,
    tolerance: float = TOLERANCE,
    most_steps: int = MOST_STEPS,
    batch_size: int = 16,
    cache: Path | None = None,
    progress: Callable[[], None] | None = None,
) -> Converged:
    """Solve the probability-flow ODE with ever more steps, until doubling them changes nothing.

    The solver is iPNDM on the blended grid (see docs/notes/tried.md). The first images are solved with twice the steps
    as well. Where that changes them too much, all get these steps.

    The ODE is followed to timestep 0, the last that the model knows; the image is the clean prediction there.

    Args:
        model: The model, with the conditions of the N images.
        x_T: (N, H, W, C) standard normal noise, e.g. `model.noise(seed, N)`.
        tolerance: Largest mean RMSE, in [-1, 1] units, between solutions with N and 2 N steps at which N are enough.
        most_steps: Where to stop doubling anyway, at most T; `Converged.change` then exceeds the tolerance.
        batch_size: Images per evaluation.
        cache: Folder that keeps solutions; one that is kept and good enough is returned, one that is not is refined.
            Solutions are told apart by the model's `guided_identity`, besides what else decides them.
        progress: Called after every step of every batch.

    Raises:
        ValueError: for a cache with a model of no identity, or a tolerance that is not positive.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance must be greater than 0, got {tolerance}")
    if cache is not None and not model.guided_identity:
        raise ValueError("a cache of converged images needs an identity of the model, e.g. its content hash")

    process = model.process
    most = min(most_steps, process.num_train_timesteps)
    path = None if cache is None else cache / f"{_key(model, x_T)}.npz"

    def solve(steps: int, some: slice) -> np.ndarray:
        grid = FixedGrid.of(process, np.append(BlendedGrid()(process, steps - 1), 0.0))
        rows, images = np.arange(len(x_T))[some], []
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            begun = Rollout.begin(grid, IPNDM(), x_T[mx.array(batch)], rows=batch)
            images.append(_drawn(model, begun, progress))
        return np.concatenate(images)

    def saved(solution: Converged) -> Converged:
        if path is not None:
            _write(path, solution)
        return solution

    checked, rest = slice(0, CHECKED), slice(CHECKED, None)
    with contextlib.nullcontext() if path is None else in_turn(path):  # nobody else solves the same meanwhile
        found = None if path is None else _read(path)
        if found is None:
            first = max(2, min(FIRST_STEPS, most // 2))
            found = saved(Converged(solve(first, slice(None)), solve(2 * first, checked), first))

        while found.change > tolerance and 4 * found.steps <= most:
            steps = 2 * found.steps
            images = [found.finer, solve(steps, rest)] if len(x_T) > CHECKED else [found.finer]
            found = saved(Converged(np.concatenate(images), solve(2 * steps, checked), steps))

    return found


def solving_evaluations(images: int, process: NoiseSchedule) -> tuple[int, int]:
    """Fewest and most network evaluations that `converged_pictures` takes for a number of images."""
    most = min(MOST_STEPS, process.num_train_timesteps)
    steps, checked = max(2, min(FIRST_STEPS, most // 2)), min(images, CHECKED)
    fewest = total = images * steps + checked * 2 * steps
    while 4 * steps <= most:
        steps *= 2
        total += (images - checked) * steps + checked * 2 * steps
    return fewest, total


def _drawn(model: GuidedModel, begun: Rollout, progress: Callable[[], None] | None) -> np.ndarray:
    """The clean images of a batch."""
    for (after,) in run(model, [begun]):
        mx.eval(after.x_t)
        if progress is not None:
            progress()
    return np.array(after.x_t)


def _key(model: GuidedModel, x_T: mx.array) -> str:
    """A hash of everything that decides a solution but the number of steps."""
    settings: dict[str, Any] = {**model.process.config, "prediction_type": model.prediction_type}
    if model.limit is unlimited:
        settings["bounded"] = False
    elif model.limit != Clipped():
        settings["limit"] = repr(model.limit)

    facts = [CACHE_VERSION, model.guided_identity, settings, list(x_T.shape)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(np.array(x_T).tobytes())
    if model.condition is not None:
        condition = np.array(model.condition)
        digest.update(np.broadcast_to(condition, (len(x_T), *condition.shape[1:])).tobytes())

    return digest.hexdigest()[:32]


def _write(path: Path, solution: Converged) -> None:
    with atomic_path(path) as temporary:
        np.savez(temporary, images=solution.images, finer=solution.finer, steps=np.array(solution.steps))


def _read(path: Path) -> Converged | None:
    """What was written there; None if nothing, or nothing whole, is."""
    try:
        found = read_arrays(path)
        return Converged(found["images"], found["finer"], int(found["steps"]))
    except (ValueError, KeyError, TypeError):  # those of read_arrays are ValueErrors
        return None
