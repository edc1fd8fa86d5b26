"""UniPC: a multistep predictor whose steps are corrected by the next evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_choice, check_count
from ..diffusion.node import Node
from .base import Memory, Position, Step

UNIPC_TYPES = ("bh1", "bh2")


@dataclass(frozen=True)
class UniPC:
    """UniPC, multistep, with data prediction (Zhao et al., 2023).

    The predictor UniP leads to the next node. Once the model has been evaluated there, the corrector UniC takes the
    same step again with that prediction, which raises the order by one and costs no evaluation; the next step goes on
    from the corrected images. The last step is not corrected, since nothing is evaluated at its end.

    It remembers the clean predictions, newest first, and then the images that the latest step began from.

    Args:
        order: 1, 2 or 3: clean predictions that the predictor uses, as far as there are that many.
        kind: `bh1` or `bh2`: see `unipc_weights`.
        lower_order_final: Lower the order of the last two steps, to 1 at the end.

    Raises:
        ValueError: for a value out of range.
    """

    order: int = 2
    kind: str = "bh2"
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        check_count("solver_order", self.order, 1, 3)
        check_choice("solver_type", self.kind, UNIPC_TYPES)

    def step(self, at: Position, memory: Memory) -> Step:
        """See `Solver`."""
        *older, began = memory or (at.x_t,)
        x0s, known, x_t = (at.x0, *older), len(older), at.x_t

        if memory:  # take the step that led here again
            left = None if at.left is None else at.left + 1
            order = self._order(at.now, known, left)
            x_t = self._advance(at.trail[:-1], at.now, began, x0s, order, corrector=True)

        order = self._order(at.then, known + 1, at.left)
        mean = self._advance(at.trail, at.then, x_t, x0s, order, corrector=False)
        return Step(mean, 0.0, (*x0s[: self.order], x_t), order)

    def _order(self, then: Node, predictions: int, left: int | None) -> int:
        """The order of a step that was predicted from so many clean predictions, with so many steps left."""
        if then.clean:
            return 1
        order = min(self.order, predictions)
        return order if left is None or not self.lower_order_final else min(order, left)

    def _advance(
        self, trail: Sequence[Node], then: Node, x: mx.array, x0s: Sequence[mx.array], order: int, *, corrector: bool
    ) -> mx.array:
        """One step from the end of a trail; for UniC the first of the clean predictions is that at its target."""
        log_snrs = [node.log_snr for node in (*trail[-order:], then)]
        mean = (then.sigma / trail[-1].sigma) * x
        for weight, x0 in zip(unipc_weights(log_snrs, self.kind, corrector), x0s, strict=False):
            mean = mean + (then.alpha * weight) * x0
        return mean


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
