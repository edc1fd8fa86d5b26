"""The contract of grids, and grids that are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, Self

import mlx.core as mx
import numpy as np

from ..diffusion.node import CLEAN, Node, Process, nodes_at
from ..errors import Unusable

GridMemory = tuple[mx.array, ...]  # what a grid remembers: (B, ...) arrays, which the loop carries, and selects from


class Spacing(Protocol):
    """A rule that says at which timesteps N steps evaluate the model."""

    def __call__(self, process: Any, n: int, /) -> np.ndarray:
        """Space the timesteps.

        Args:
            process: The noise process that the model was trained with, T timesteps.
            n: Number of timesteps, in [1, T].

        Returns:
            (n,) float64 real-valued timesteps, strictly decreasing.

        Raises:
            ValueError: for `n` out of range.
        """
        ...


class Grid(Protocol):
    """Says where a run evaluates the model next. Frozen and pure: equal arguments give equal nodes."""

    @property
    def steps(self) -> int | None:
        """Steps of the whole run; None if only the way shows how many."""
        ...

    def next(self, trail: Sequence[Node], x0: mx.array | None, memory: GridMemory, /) -> tuple[Node, GridMemory]:
        """The next node.

        Args:
            trail: Nodes where the model was evaluated so far; none at the beginning.
            x0: (B, H, W, C) clean predictions at the last one; None at the beginning.
            memory: What the answer before gave back; () at the beginning.

        Returns:
            The node, or CLEAN if the run is to end with these predictions; and what is to be given next time.
        """
        ...


def spaced(spacing: Spacing, process: Any, n: int) -> np.ndarray:
    """(n,) timesteps as a rule spaces them.

    Raises:
        ValueError: for a number of steps that the rule does not take, or a rule that gives another number of timesteps,
            or timesteps that are not strictly decreasing in [0, T - 1].
    """
    timesteps = spacing(process, n)
    if np.shape(timesteps) != (n,):
        raise Unusable(f"the grid must give {n} timesteps, as many as there are steps, got {timesteps!r:.80}")
    return custom_timesteps(timesteps, process.num_train_timesteps)


def custom_timesteps(timesteps: Any, num_train_timesteps: int) -> np.ndarray:
    """The caller's own timesteps as a float64 array, checked.

    Raises:
        ValueError: unless they are strictly decreasing numbers in [0, T - 1].
    """
    try:
        grid = np.asarray(timesteps, np.float64)
    except (TypeError, ValueError):
        grid = np.empty(0)

    high = num_train_timesteps - 1
    if grid.ndim != 1 or grid.size == 0 or not np.all((grid >= 0) & (grid <= high)) or not np.all(np.diff(grid) < 0):
        raise ValueError(
            f"timesteps must be a list of strictly decreasing numbers in [0, {high}], got {str(timesteps)[:80]}"
        )

    return grid.copy()


@dataclass(frozen=True)
class FixedGrid:
    """Nodes that are known beforehand, from high noise to low.

    Args:
        nodes: At least one, of decreasing noise.

    Raises:
        ValueError: for no node, or noise that does not decrease.
    """

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        if not self.nodes:
            raise ValueError("a grid needs at least one node")
        levels = [node.log_snr for node in self.nodes]
        if any(later < earlier for earlier, later in pairwise(levels)):
            raise ValueError("the noise of a grid's nodes must decrease")

    @classmethod
    def of(cls, process: Process, timesteps: Sequence[float] | np.ndarray) -> Self:
        """The grid of some timesteps.

        Args:
            process: The noise process of the model.
            timesteps: (n,) strictly decreasing.
        """
        return cls(nodes_at(process, timesteps))

    @classmethod
    def spaced(cls, spacing: Spacing, process: Any, n: int) -> Self:
        """The grid of n timesteps that a rule spaces.

        Raises:
            ValueError: see `spaced`.
        """
        return cls.of(process, spaced(spacing, process, n))

    @property
    def timesteps(self) -> np.ndarray:
        """(n,) float64."""
        return np.array([node.t for node in self.nodes])

    @property
    def steps(self) -> int:
        """See `Grid`."""
        return len(self.nodes)

    def next(
        self, trail: Sequence[Node], x0: mx.array | None = None, memory: GridMemory = ()
    ) -> tuple[Node, GridMemory]:
        """See `Grid`."""
        taken = len(trail)
        return (self.nodes[taken] if taken < len(self.nodes) else CLEAN), ()
