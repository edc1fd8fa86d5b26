"""Teacher trajectories: where the ODE really leads from some noises, densely enough to be read at any noise level.

States are rescaled, xh = x / alpha, and move by dxh / ds = (xh - D) / s, with s = sigma / alpha and D the clean
prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_count
from ..diffusion.guided_model import GuidedModel
from ..diffusion.node import node_at
from ..grids.base import FixedGrid
from ..grids.grids import BlendedGrid
from ..sampling.rollout import InBatches, Rollout, run
from ..solvers.ipndm import IPNDM

NODES = 64  # of iPNDM on the blended grid; twice as many change the shipped model's portraits by 0.0012 (RMSE)


class CleanPredictor:
    """D(xh, t) of a model, for many pictures in batches.

    Args:
        model: The model, with the conditions of the N pictures.
        batch_size: Pictures per evaluation.
        progress: Called with the number of pictures after every evaluation.
    """

    def __init__(self, model: GuidedModel, batch_size: int = 16, progress: Callable[[int], None] | None = None):
        self.schedule = model.process
        self.model = InBatches(model, check_count("batch_size", batch_size, 1), progress)

    def __call__(self, states: np.ndarray, t: float) -> np.ndarray:
        """(N, H, W, C) states xh at a timestep -> (N, H, W, C) float64 clean predictions, clipped as configured."""
        node = node_at(self.schedule, t)
        x_t = mx.array((node.alpha * states).astype(np.float32))
        return np.array(self.model.denoise(x_t, node, np.arange(len(states))).x0, np.float64)


@dataclass(frozen=True, eq=False)
class Teacher:
    """Recorded trajectories of N pictures on m nodes.

    Attributes:
        levels: (m,) s = sigma / alpha of the nodes, decreasing, the last one at timestep 0.
        states: (m, N, H, W, C) float32 states xh.
        predictions: (m, N, H, W, C) float32 clean predictions D.
    """

    levels: np.ndarray
    states: np.ndarray
    predictions: np.ndarray

    @property
    def noise(self) -> np.ndarray:
        """(N, H, W, C) states where the trajectories begin."""
        return np.asarray(self.states[0], np.float64)

    @property
    def pictures(self) -> np.ndarray:
        """(N, H, W, C) float64 clean pictures where they end."""
        return np.asarray(self.predictions[-1], np.float64)

    def at(self, level: float) -> np.ndarray:
        """(N, H, W, C) float64 states at a noise level, between the nodes by the cubic that has the ODE's slopes."""
        i = int(np.clip(np.searchsorted(-self.levels, -level, side="right") - 1, 0, len(self.levels) - 2))
        start, end = self.levels[i : i + 2]
        h = end - start
        u = (level - start) / h
        slopes = [(self.states[j] - self.predictions[j].astype(np.float64)) / self.levels[j] for j in (i, i + 1)]
        return np.asarray(
            (2 * u**3 - 3 * u**2 + 1) * self.states[i]
            + (u**3 - 2 * u**2 + u) * h * slopes[0]
            + (3 * u**2 - 2 * u**3) * self.states[i + 1]
            + (u**3 - u**2) * h * slopes[1]
        )

    def __getitem__(self, some: slice) -> Teacher:
        """The trajectories of some of the pictures."""
        return Teacher(self.levels, self.states[:, some], self.predictions[:, some])

    def __len__(self) -> int:
        """N, the number of pictures."""
        return self.states.shape[1]


def record(predict: CleanPredictor, x_T: mx.array, nodes: int = NODES) -> Teacher:
    """Follow the ODE with iPNDM on the blended grid down to timestep 0, and keep every state.

    Costs `nodes` evaluations and 8 `nodes` bytes per pixel and channel of each picture.

    Args:
        predict: The model.
        x_T: (N, H, W, C) standard normal noise.
        nodes: m, in [3, T].
    """
    schedule = predict.schedule
    check_count("nodes", nodes, 3, schedule.num_train_timesteps)
    grid = FixedGrid.of(schedule, np.append(BlendedGrid()(schedule, nodes - 1), 0.0))

    states, predictions = [np.array(x_T)], list[np.ndarray]()
    for (after,) in run(predict.model, [Rollout.begin(grid, IPNDM(), x_T)]):
        states.append(np.array(after.x_t))
        predictions.append(np.array(after.x0))

    rescaled = [x_t / node.alpha for x_t, node in zip(states, grid.nodes, strict=False)]
    return Teacher(np.array([node.level for node in grid.nodes]), np.stack(rescaled), np.stack(predictions))
