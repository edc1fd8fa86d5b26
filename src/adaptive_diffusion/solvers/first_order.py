"""DDIM and DDPM: a step knows the prediction where it begins, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..diffusion.checks import check_choice, check_number
from ..diffusion.node import Node
from ..diffusion.schedule import eps_from
from .base import Memory, Position, Step

VARIANCE_TYPES = ("fixed_small", "fixed_large")


@dataclass(frozen=True)
class DDIM:
    """Denoising diffusion implicit models (Song et al., 2021, eq. 12 and 16).

    Args:
        eta: Noise, from 0 (deterministic) to 1 (as much as `DDPM` with `fixed_small`).
        clipped_eps: Take eps from the clean prediction after clipping, not from the network's own output.

    Raises:
        ValueError: for a value out of range.
    """

    eta: float = 0.0
    clipped_eps: bool = False

    def __post_init__(self) -> None:
        check_number("eta", self.eta, 0, 1)

    @property
    def stochastic(self) -> bool:
        """Whether there is noise to add."""
        return self.eta > 0

    def step(self, at: Position, memory: Memory) -> Step:
        """See `Solver`."""
        now, then = at.now, at.then
        eps = eps_from(at.x0, at.x_t, now.alpha, now.sigma, "sample") if self.clipped_eps else at.eps
        std = self.eta * then.sigma / now.sigma * math.sqrt(forward_variance(now, then))
        mean = then.alpha * at.x0 + math.sqrt(max(then.sigma**2 - std**2, 0.0)) * eps
        return Step(mean, std, ())


@dataclass(frozen=True)
class DDPM:
    """Ancestral sampling from the true posterior q(x_s | x_t, x0) (Ho et al., 2020, eq. 7), for any stride.

    The step to a clean image adds no noise: it gives the posterior's mean, which is the clean prediction.

    Args:
        variance_type: `fixed_small`, the posterior's variance, or `fixed_large`, that of the forward step.

    Raises:
        ValueError: for an unknown variance type.
    """

    variance_type: str = "fixed_small"

    def __post_init__(self) -> None:
        check_choice("variance_type", self.variance_type, VARIANCE_TYPES)

    @property
    def stochastic(self) -> bool:
        """True: every step but the last adds noise."""
        return True

    def step(self, at: Position, memory: Memory) -> Step:
        """See `Solver`."""
        now, then = at.now, at.then
        beta, left = forward_variance(now, then), (then.sigma / now.sigma) ** 2
        mean = (then.alpha * beta / now.sigma**2) * at.x0 + (now.alpha / then.alpha * left) * at.x_t
        variance = beta * left if self.variance_type == "fixed_small" or then.clean else beta
        return Step(mean, math.sqrt(variance), ())


def forward_variance(now: Node, then: Node) -> float:
    """The variance that the forward process adds from `then` to `now`, 1 - alpha_now^2 / alpha_then^2."""
    return max(1 - (now.alpha / then.alpha) ** 2, 0.0)
