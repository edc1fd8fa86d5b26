"""iPNDM: Adams-Bashforth on eps."""

from __future__ import annotations

from dataclasses import dataclass

from ..diffusion.schedule import eps_from
from .base import Memory, Position, Step

ADAMS_BASHFORTH = (  # of a polynomial through 1 to 4 equally spaced slopes, newest first
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True)
class IPNDM:
    """iPNDM: four-step Adams-Bashforth on eps (Liu et al., 2022), started with fewer steps (Zhang & Chen, 2023).

    With xh = x / alpha and s = sigma / alpha the ODE is dxh / ds = eps. The coefficients are those of equal steps,
    whatever the grid, and the first three steps have 1, 2 and 3 slopes only: it converges with order 2. The last step
    leads to the clean prediction. eps is taken from the clean prediction after clipping.

    It remembers eps, newest first.
    """

    def step(self, at: Position, memory: Memory) -> Step:
        """See `Solver`."""
        now, then = at.now, at.then
        eps = eps_from(at.x0, at.x_t, now.alpha, now.sigma, "sample")
        known = (eps, *memory)[: len(ADAMS_BASHFORTH) - 1]
        if then.clean:
            return Step(at.x0, 0.0, known)

        # xh' = xh + (s' - s) sum_i c_i eps_i, with the newest slope's part written as the step of DDIM
        mean = then.alpha * at.x0 + then.sigma * eps
        scale = then.sigma - then.alpha * now.sigma / now.alpha
        for coefficient, eps_i in zip(ADAMS_BASHFORTH[len(memory)][1:], memory, strict=True):
            mean = mean + (scale * coefficient) * (eps_i - eps)
        return Step(mean, 0.0, known, 1 + len(memory))
