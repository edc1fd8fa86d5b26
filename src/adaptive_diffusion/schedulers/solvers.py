"""UniPC and iPNDM: two more ways to advance, for any grid; like DPM-Solver++ they cost one evaluation per step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ..baseline.checks import check_choice, check_count
from ..baseline.noise_schedule import eps_from
from ..baseline.scheduler_base import CLEAN, Node, SchedulerBase
from ..baseline.schedulers import first_node
from ..baseline.spacing import spaced_timesteps

__all__ = ["IPNDMScheduler", "UniPCScheduler", "unipc_weights"]

UNIPC_TYPES = ("bh1", "bh2")
ADAMS_BASHFORTH = (  # of a polynomial through 1 to 4 equally spaced slopes, newest first
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def unipc_weights(log_snrs: Sequence[float], solver_type: str = "bh2", corrector: bool = False) -> list[float]:
    """Weights of one step of UniP or UniC with data prediction (Zhao et al., 2023).

    Both integrate e^-(h - u) D(u) over the step exactly, D being the polynomial through the predictions. Only where
    two predictions are all there is, the published solver replaces the weight of their difference by half of B(h).

    Args:
        log_snrs: k + 1 increasing log-SNRs for order k, 1 to 3: those of the predictions, oldest first, the newest
            one being where the step begins, and that of the target, which may be infinite for UniP of order 1.
        solver_type: B(h) is the step h in log-SNR (`bh1`) or 1 - e^-h (`bh2`).
        corrector: UniC, which knows the prediction at the target as well; else UniP.

    Returns:
        w_i: the next sample is sigma' / sigma * x + alpha' * sum_i w_i D_i. For UniC the prediction at the target comes
        first; then that where the step begins, then the older ones, perhaps fewer than k. They sum to 1 - e^-h.
    """
    *older, start, end = log_snrs
    h = end - start
    total = -math.expm1(-h)
    if h <= 0:  # float64 does not tell the two timesteps apart
        return [0.0]
    places, last = [1.0] if corrector else [], start  # of the predictions, in steps from the start
    for log_snr in reversed(older):
        if log_snr >= last:  # no longer told apart either: it and the older ones add nothing
            break
        places.append((log_snr - start) / h)
        last = log_snr
    if len(places) == 1:
        differences = [(h if solver_type == "bh1" else total) / (2 * places[0])]
    else:
        differences = _integrals(h, places)
    weights = [total - sum(differences), *differences]
    return [weights[1], weights[0], *weights[2:]] if corrector else weights


def _integrals(h: float, places: Sequence[float]) -> list[float]:
    """Integrals of h e^-h(1 - v) l_k(v) over [0, 1], l_k being 1 at place k, and 0 at the others and at 0."""
    moments = _moments(h, len(places))
    integrals = []
    for k, place in enumerate(places):
        others = [0.0, *places[:k], *places[k + 1 :]]
        polynomial = np.poly(others)[::-1]  # coefficients from degree 0 on
        integrals.append(float(polynomial @ moments) / math.prod(place - other for other in others))
    return integrals


def _moments(h: float, degree: int) -> np.ndarray:
    """(degree + 1,) integrals of h e^-h(1 - v) v^n over [0, 1]."""
    if h < 1:  # the recursion would lose 1 / h^n; 18 terms leave less than 1 / 18!
        return np.array(
            [
                sum(-((-h) ** k) * math.factorial(n) / math.factorial(n + k) for k in range(18, 0, -1))
                for n in range(degree + 1)
            ]
        )
    moments = [-math.expm1(-h)]
    for n in range(1, degree + 1):
        moments.append(1 - n / h * moments[-1])
    return np.array(moments)


@dataclass(eq=False, repr=False)
class _Solver(SchedulerBase):
    """A solver with arrays to remember besides the clean predictions: they are forgotten and selected together."""

    clip_sample: bool = False
    timestep_spacing: str = "linspace"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._others: list[mx.array] = []

    def set_timesteps(self, num_inference_steps: int | None = None, *, timesteps: Any = None) -> None:
        """See `SchedulerBase.set_timesteps`."""
        super().set_timesteps(num_inference_steps, timesteps=timesteps)
        self._others = []

    def select(self, indices: np.ndarray) -> None:
        """See `SchedulerBase.select`."""
        count = len(self._memory)
        self._memory = [*self._memory, *self._others]
        super().select(indices)
        self._memory, self._others = self._memory[:count], self._memory[count:]

    def _grid(self, n: int) -> np.ndarray:
        return spaced_timesteps(self.timestep_spacing, n, self.num_train_timesteps, self.steps_offset, open_end=True)

    def _locate(self, timestep: Any) -> int:
        index = super()._locate(timestep)
        if index != self._next:
            self._others = []
        return index

    def _check_batch(self, x0: mx.array) -> None:
        if self._others and self._others[0].shape != x0.shape:
            raise ValueError(
                f"the solver remembers pictures of shape {self._others[0].shape}, got {x0.shape}: call select when "
                "pictures leave the batch, or set_timesteps to begin anew"
            )


@dataclass(eq=False, repr=False)
class UniPCScheduler(_Solver):
    """UniPC, multistep, with data prediction (Zhao et al., 2023).

    The predictor UniP leads to the next timestep. Once the model has been evaluated there, the corrector UniC takes the
    same step again with that prediction, which raises the order by one and costs no evaluation; the next step goes on
    from the corrected sample. The last step is not corrected: nothing is evaluated at its end.

    Args:
        solver_order: 1, 2 or 3: clean predictions that the predictor uses, as far as there are that many.
        solver_type: `bh1` or `bh2`: see `unipc_weights`.
        lower_order_final: Lower the order of the last two steps, to 1 at the end.
        final_sigmas_type: The last step leads to the clean picture (`zero`; always of order 1), or to timestep 0
            (`sigma_min`), which holds a little noise.
        num_train_timesteps, ...: See `SchedulerBase`; here `clip_sample` is off and the spacing `linspace` by default.
    """

    solver_order: int = 2
    solver_type: str = "bh2"
    lower_order_final: bool = True
    final_sigmas_type: str = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("solver_order", self.solver_order, 1, 3)
        check_choice("solver_type", self.solver_type, UNIPC_TYPES)
        check_choice("final_sigmas_type", self.final_sigmas_type, ("zero", "sigma_min"))
        self._memory_length = self.solver_order

    def _end(self) -> Node:
        return CLEAN if self.final_sigmas_type == "zero" else first_node(self)

    def _order(self, index: int, predictions: int) -> int:
        """The order of step `index`, of which so many clean predictions were known when it was predicted."""
        remaining = len(self) - index
        if remaining == 1 and self._nodes[-1] is CLEAN:
            return 1
        order = min(self.solver_order, predictions)
        return min(order, remaining) if self.lower_order_final else order

    def _update(self, index: int, order: int, x: mx.array, x0s: Sequence[mx.array], corrector: bool) -> mx.array:
        """Step `index` from x; the clean predictions are newest first, for UniC beginning with that at its target."""
        now, then = self._nodes[index : index + 2]
        log_snrs = [node.log_snr for node in self._nodes[index + 1 - order : index + 2]]
        mean = (then.sigma / now.sigma) * x
        for weight, x0 in zip(unipc_weights(log_snrs, self.solver_type, corrector), x0s, strict=False):
            mean = mean + (then.alpha * weight) * x0
        return mean

    def _advance(self, index: int, prediction: mx.array, x_t: mx.array, x0: mx.array) -> tuple[mx.array, float]:
        self._check_batch(x0)
        x0s, known = [x0, *self._memory], len(self._memory)
        if self._others:  # the sample that the step to here began from
            x_t = self._update(index - 1, self._order(index - 1, known), self._others[0], x0s, corrector=True)
        self._others = [x_t]
        return self._update(index, self._order(index, known + 1), x_t, x0s, corrector=False), 0.0


@dataclass(eq=False, repr=False)
class IPNDMScheduler(_Solver):
    """iPNDM: four-step Adams-Bashforth on eps (Liu et al., 2022), started with fewer steps (Zhang & Chen, 2023).

    With xh = x / alpha and s = sigma / alpha the ODE is dxh / ds = eps. The coefficients are those of equal steps,
    whatever the grid, and the first three steps have 1, 2 and 3 slopes only: it converges with order 2. The last step
    leads to the clean prediction. eps is taken from the clean prediction after clipping.

    Args:
        num_train_timesteps, ...: See `SchedulerBase`; here `clip_sample` is off and the spacing `linspace` by default.
    """

    def _advance(self, index: int, prediction: mx.array, x_t: mx.array, x0: mx.array) -> tuple[mx.array, float]:
        self._check_batch(x0)
        now, then = self._nodes[index : index + 2]
        eps = eps_from(x0, x_t, now.alpha, now.sigma, "sample")
        older, self._others = self._others, [eps, *self._others][: len(ADAMS_BASHFORTH) - 1]
        if then is CLEAN:
            return x0, 0.0
        # xh' = xh + (s' - s) sum_i c_i eps_i, with the newest slope's part written as the step of DDIM
        mean = then.alpha * x0 + then.sigma * eps
        scale = then.sigma - then.alpha * now.sigma / now.alpha
        for coefficient, eps_i in zip(ADAMS_BASHFORTH[len(older)][1:], older, strict=True):
            mean = mean + (scale * coefficient) * (eps_i - eps)
        return mean, 0.0
