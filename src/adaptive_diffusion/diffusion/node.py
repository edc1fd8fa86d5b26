"""Node: a point of the noise process where a model is evaluated, or where a step leads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class Process(Protocol):
    """A noise process x_t = alpha(t) x0 + sigma(t) eps, at real-valued t; the arguments may be arrays."""

    def alpha(self, t: Any) -> np.ndarray:
        """Signal scale, > 0."""
        ...

    def sigma(self, t: Any) -> np.ndarray:
        """Noise scale, >= 0."""
        ...

    def log_snr(self, t: Any) -> np.ndarray:
        """log(alpha / sigma), decreasing in t."""
        ...

    def timestep(self, log_snr: Any) -> np.ndarray:
        """The inverse of `log_snr`."""
        ...


class Node(NamedTuple):
    """A point of a noise process: x = alpha x0 + sigma eps.

    Attributes:
        alpha: Signal scale.
        sigma: Noise scale; 0 for a clean image.
        log_snr: log(alpha / sigma), infinite for a clean image.
        t: The timestep, real-valued; NaN where the model is not evaluated.
    """

    alpha: float
    sigma: float
    log_snr: float
    t: float = math.nan

    @property
    def level(self) -> float:
        """The noise level sigma / alpha."""
        return self.sigma / self.alpha

    @property
    def clean(self) -> bool:
        """Whether there is no noise left."""
        return self.sigma == 0


CLEAN = Node(1.0, 0.0, math.inf)  # where the last step of a run leads; the model is not evaluated there


def nodes_at(process: Process, timesteps: Sequence[float] | np.ndarray) -> tuple[Node, ...]:
    """The nodes of some timesteps."""
    t = np.asarray(timesteps, np.float64)
    columns = (process.alpha(t), process.sigma(t), process.log_snr(t), t)
    return tuple(Node(*map(float, row)) for row in zip(*columns, strict=True))


def node_at(process: Process, t: float) -> Node:
    """The node of a timestep."""
    return nodes_at(process, [t])[0]
