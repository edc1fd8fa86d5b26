"""The contract of solvers: what a step sees, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import mlx.core as mx

from ..diffusion.node import Node

Memory = tuple[mx.array, ...]  # what a solver remembers: (B, ...) arrays, which the loop carries, and selects from


class Position(NamedTuple):
    """Where a run stands when a step is due.

    Attributes:
        trail: Nodes where the model was evaluated so far; the step begins at the last one.
        then: Where the step leads: the next node, or a clean image.
        x_t: (B, H, W, C) noisy images at the last node of the trail.
        x0: (B, H, W, C) clean predictions there, in the range of the data.
        eps: (B, H, W, C) the noise there, by the network's own output.
        left: Steps left, this one included; None where the grid does not know.
    """

    trail: Sequence[Node]
    then: Node
    x_t: mx.array
    x0: mx.array
    eps: mx.array
    left: int | None = None

    @property
    def now(self) -> Node:
        """Where the step begins."""
        return self.trail[-1]

    @property
    def steps(self) -> int | None:
        """Steps of the whole run; None where the grid does not know."""
        return None if self.left is None else len(self.trail) - 1 + self.left


class Step(NamedTuple):
    """A step of a solver.

    Attributes:
        mean: (B, H, W, C) the next images, except for the noise to add.
        std: Standard deviation of that noise; the loop draws it.
        memory: What the solver is to be given at the next step.
        order: Predictions that the step combined, or derivatives that it matched; 1 for a step of first order.
        error: (B,) how far the step was from one of first order, where it was checked; see `Checked`.
    """

    mean: mx.array
    std: float
    memory: Memory
    order: int = 1
    error: mx.array | None = None


class Solver(Protocol):
    """Advances images along a noise process. Frozen and pure: equal arguments give equal steps.

    A solver that adds noise says so by an attribute `stochastic`, which is True.
    """

    def step(self, at: Position, memory: Memory, /) -> Step:
        """Take one step.

        Args:
            at: Where the run stands.
            memory: What the step before gave back; () at the beginning, and where a run begins anew.
        """
        ...
