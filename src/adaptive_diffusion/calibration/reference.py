"""Reference trajectories: where the ODE really leads from some noises, densely enough to be read at any noise level.

States are rescaled, xh = x / alpha, and move by dxh / ds = (xh - D) / s, with s = sigma / alpha and D the clean
prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_count
from ..errors import Unusable
from ..grids.base import FixedGrid
from ..grids.spacings import BlendedGrid
from ..sampling.rollout import InBatches, Rollout, run
from ..solvers.ipndm import IPNDM

FEWEST_NODES = 8  # of the quick recipe
NODES = 64  # of iPNDM on the blended grid; see docs/notes/tried.md


@dataclass(frozen=True, eq=False)
class ReferenceTrajectories:
    """Recorded trajectories of N images on m nodes.

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
    def images(self) -> np.ndarray:
        """(N, H, W, C) float64 clean images where they end."""
        return np.asarray(self.predictions[-1], np.float64)

    def at(self, level: float) -> np.ndarray:
        """(N, H, W, C) float64 states at a noise level, between the nodes by the cubic that has the ODE's slopes."""
        result = np.zeros(self.states.shape[1:])
        for node, value, slope in hermite(self.levels, level):
            ode = (self.states[node] - self.predictions[node].astype(np.float64)) / self.levels[node]
            result += value * self.states[node] + slope * ode
        return result

    def __getitem__(self, some: slice) -> ReferenceTrajectories:
        """The trajectories of some of the images."""
        return ReferenceTrajectories(self.levels, self.states[:, some], self.predictions[:, some])

    def __len__(self) -> int:
        """N, the number of images."""
        return self.states.shape[1]


def hermite(levels: np.ndarray, level: float) -> list[tuple[int, float, float]]:
    """Hermite's cubic on the interval of nodes that holds a noise level.

    Args:
        levels: (m,) noise levels of the nodes, decreasing.
        level: Between the first and the last.

    Returns:
        The two nodes, each with the coefficient of its value and that of its slope.
    """
    i = int(np.clip(np.searchsorted(-levels, -level, side="right") - 1, 0, len(levels) - 2))
    h = float(levels[i + 1] - levels[i])
    u = float(level - levels[i]) / h
    return [
        (i, 2 * u**3 - 3 * u**2 + 1, (u**3 - 2 * u**2 + u) * h),
        (i + 1, 3 * u**2 - 2 * u**3, (u**3 - u**2) * h),
    ]


def record(model: InBatches, x_T: mx.array, nodes: int = NODES) -> ReferenceTrajectories:
    """Follow the ODE with iPNDM on the blended grid down to timestep 0, and keep every state.

    Costs `nodes` evaluations and 8 `nodes` bytes per pixel and channel of each image.

    Args:
        model: The model, with the conditions of the N images.
        x_T: (N, H, W, C) standard normal noise.
        nodes: m, in [3, T].

    Raises:
        Unusable: for a model of fewer than m training timesteps.
    """
    process, T = model.process, model.process.num_train_timesteps
    if check_count("nodes", nodes, 3) > T:
        few = f"a model of {T} training timesteps has no reference trajectories of {nodes} steps"
        if T < FEWEST_NODES:
            raise Unusable(f"{few}, and takes at least {FEWEST_NODES} to be calibrated; take the power grid")
        raise Unusable(
            f"{few}; calibrate it by the quick recipe, task=schedule, with task.nodes={T} or less and "
            f"task.steps of at most {T // 2} (in Python nodes and steps of calibrate_model)"
        )
    grid = FixedGrid.of(process, np.append(BlendedGrid()(process, nodes - 1), 0.0))

    states, predictions = [np.array(x_T)], list[np.ndarray]()
    for (after,) in run(model, [Rollout.begin(grid, IPNDM(), x_T)]):
        states.append(np.array(after.x_t))
        predictions.append(np.array(after.x0))

    rescaled = [x_t / node.alpha for x_t, node in zip(states, grid.nodes, strict=False)]
    return ReferenceTrajectories(
        np.array([node.level for node in grid.nodes]), np.stack(rescaled), np.stack(predictions)
    )
