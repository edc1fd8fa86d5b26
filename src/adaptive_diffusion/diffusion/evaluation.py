"""An evaluation of a model: the images that wait for it, what it says of them, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import mlx.core as mx
import numpy as np

from .arrays import at_least_float32
from .guidance import Guidance
from .limits import Limit, unlimited
from .node import Node
from .schedule import eps_from, x0_from


class Waiting(NamedTuple):
    """Images that wait for an evaluation.

    Attributes:
        x_t: (b, H, W, C) noisy images.
        node: Where they are.
        rows: (b,) which images of the run they are.
        guidance: What they are guided by instead of the model's own guidance; None: that.
    """

    x_t: mx.array
    node: Node
    rows: np.ndarray
    guidance: Guidance | None = None


class Denoised(NamedTuple):
    """What one evaluation of the model says at a node.

    Attributes:
        x0: (B, H, W, C) clean predictions, in the range of the data.
        eps: (B, H, W, C) the noise, by the network's own output: not by `x0`, which may be clipped.
    """

    x0: mx.array
    eps: mx.array


@dataclass
class Cost:
    """What was evaluated so far, each image counting.

    Attributes:
        evaluations: Evaluations of the guided model; the field's NFE.
        passes: Passes through a network: two for a guided evaluation, one for an unguided one. A pass through the
            weaker network of `Autoguidance` counts as one, whatever its size.
    """

    evaluations: int = 0
    passes: int = 0


class Model(Protocol):
    """What a run needs of a model; `GuidedModel` is one."""

    def denoise_all(self, waiting: Sequence[Waiting], /) -> list[Denoised]:
        """Evaluate the model once for images at several nodes."""
        ...


def interpreted(
    prediction: mx.array, x_t: mx.array, node: Node, prediction_type: str, limit: Limit = unlimited
) -> Denoised:
    """What a prediction of a given type says at a node; float32 at least."""
    x_t, prediction = at_least_float32(x_t), at_least_float32(prediction)
    x0 = limit(x0_from(prediction, x_t, node.alpha, node.sigma, prediction_type))
    return Denoised(x0, eps_from(prediction, x_t, node.alpha, node.sigma, prediction_type))
