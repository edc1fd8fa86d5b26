"""A check of any solver's steps against the first-order steps that they contain."""

from __future__ import annotations

from dataclasses import dataclass, field

import mlx.core as mx

from ..diffusion.arrays import rms
from ..diffusion.checks import check_number
from .base import Memory, Position, Solver, Step
from .dpm_solver import DPMSolver

_FIRST_ORDER = DPMSolver(order=1)


@dataclass(frozen=True)
class Checked:
    """Takes the steps of a solver, image by image, unless they differ too much from first order.

    The difference is E = RMS(x' - x_1st) / (alpha' (RMS(D) + RMS(D_prev)) + sigma'), D and D_prev being this and the
    previous clean prediction, so that what is buried in noise counts little. Where E exceeds the threshold, the image
    takes the step of first order. Steps that are of first order anyway are not checked.

    It remembers the latest clean prediction, and then what the solver remembers.

    Args:
        solver: A deterministic solver.
        threshold: Of E, in [0, 1]; 0 leaves nothing but steps of first order (DDIM).

    Raises:
        ValueError: for a threshold out of range.
    """

    solver: Solver = field(default_factory=DPMSolver)
    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_number("adaptive_threshold", self.threshold, 0, 1)

    def step(self, at: Position, memory: Memory) -> Step:
        """See `Solver`; the step tells its error E."""
        step = self.solver.step(at, memory[1:])
        kept = (at.x0, *step.memory)
        if step.order == 1 or not memory:
            return step._replace(memory=kept)

        first = _FIRST_ORDER.step(at, ()).mean
        scale = at.then.alpha * (rms(at.x0) + rms(memory[0])) + at.then.sigma + 1e-12
        error = rms(step.mean - first) / scale
        mean = mx.where(error > self.threshold, first, step.mean)
        return step._replace(mean=mean, memory=kept, error=error.reshape(-1))
