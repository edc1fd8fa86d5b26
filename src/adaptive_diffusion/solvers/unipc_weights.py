"""Weights of the steps of UniPC, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

UNIPC_TYPES = ("bh1", "bh2")


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
