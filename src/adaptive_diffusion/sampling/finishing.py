"""Finishing: from where an image stopped, the last few evaluations of the model, in long strides."""

from __future__ import annotations

import numpy as np

from ..diffusion.evaluation import Denoised
from ..diffusion.node import Process, node_at, nodes_at
from ..grids.base import FixedGrid
from ..solvers.stride import Stride
from .rollout import Rollout

POWER = 1.7  # of the noise levels on the way; with 3 evaluations somewhat nearer to the converged solution than 2


def finishing_levels(level: float, count: int, lowest: float) -> np.ndarray:
    """Noise levels of the evaluations that finish an image.

    Args:
        level: sigma / alpha of its latest evaluation.
        count: Evaluations to come, >= 0.
        lowest: The least level that the model knows, at most `level`.

    Returns:
        (count,) float64 levels between the two, decreasing, equally spaced in the power 1 / 1.7 of what is above the
        lowest. For `count` 3: 0.61, 0.31 and 0.09 of the way.
    """
    ahead = 1 - np.arange(1, count + 1) / (count + 1)
    return np.asarray(lowest + (level - lowest) * ahead**POWER)


def finishing(before: Rollout, denoised: Denoised, process: Process, count: int) -> Rollout:
    """Images that leave their grid, one step on their way to the end.

    They go on from the state in which they were evaluated last: a stride takes the place of the step that their own
    solver would have taken from there. No stride adds noise, whatever their own steps did.

    Args:
        before: The images before that step.
        denoised: What the model said of them there.
        process: The noise process of the model.
        count: Evaluations to come, >= 1.
    """
    levels = finishing_levels(before.node.level, count, node_at(process, 0).level)
    nodes = nodes_at(process, process.timestep(-np.log(levels)))
    grid = FixedGrid((*before.trail, before.node, *nodes))
    return before.go_on(grid, Stride(), () if before.x0 is None else (before.x0,)).step(denoised)
