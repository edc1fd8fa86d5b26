"""How long a network evaluation takes here, so that costs can be told in minutes."""

from __future__ import annotations

import time
from collections.abc import Callable

import mlx.core as mx
import numpy as np

from ..diffusion.guided_model import GuidedModel
from ..diffusion.node import node_at


def seconds_per_evaluation(model: GuidedModel, images: int = 1) -> float:
    """Seconds of a guided evaluation of one image, timed in a batch after one that compiles the network.

    Args:
        model: The model; of its conditions that of the first image is taken.
        images: Images of the batch, >= 1.
    """
    one = model.of_images(0, 1)
    one = one.with_condition(None if one.condition is None else one.condition[:1])
    x_T, node = one.noise(0, images), node_at(model.process, model.process.num_train_timesteps - 1)

    return seconds_of(lambda: one.denoise(x_T, node, np.arange(images)).x0) / images


def seconds_of(evaluate: Callable[[], mx.array]) -> float:
    """Seconds of an evaluation, timed after one that compiles the network and warms up."""
    mx.eval(evaluate())
    start = time.perf_counter()
    mx.eval(evaluate())
    return time.perf_counter() - start


def duration(seconds: float) -> str:
    """Seconds in words, e.g. "50 s", "3 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
