"""Which of several solutions becomes the calibrated one: judged by held-out noises, against the best classical one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..grids.calibrated_schedule import CalibratedSteps, Score
from ..metrics.intervals import standard_error
from .fitting import Solution


def choose(
    candidates: Mapping[str, Solution],
    score: Callable[[Solution], np.ndarray],
    classical: Sequence[str],
    margin: float = 1.0,
) -> CalibratedSteps:
    """Choose among candidates of equally many steps; a calibrated one has to earn its place.

    The best calibrated one is taken if its mean error is below that of the best classical one by more than `margin`
    standard errors of their paired difference, else the classical one.

    Args:
        candidates: Name -> candidate.
        score: Gives the (N,) errors of the images drawn with a candidate, always from the same N >= 2 held-out
            noises; smaller is better.
        classical: Names of the candidates that know nothing of the model, at least one.
        margin: >= 0.

    Raises:
        ValueError: if no candidate is classical, or the scores are no pairs of finite numbers.
    """
    if not classical or not set(classical) <= candidates.keys():
        raise ValueError(
            f"the classical grids must be some of the candidates {', '.join(candidates)}, got {', '.join(classical)}"
        )

    errors = {name: np.asarray(score(candidate), np.float64) for name, candidate in candidates.items()}
    held_out = len(errors[classical[0]])
    if held_out < 2 or not all(e.shape == (held_out,) and np.isfinite(e).all() for e in errors.values()):
        raise ValueError("score must give the same number of finite errors for all candidates, at least 2")

    means = {name: float(error.mean()) for name, error in errors.items()}
    best = min(classical, key=means.__getitem__)
    rival = min((name for name in candidates if name not in classical), key=means.__getitem__, default=best)
    gain = errors[best] - errors[rival]
    if gain.mean() > margin * standard_error(gain):
        best = rival
    scores = {name: score_of(error) for name, error in errors.items()}
    chosen = candidates[best]
    rows = None if chosen.corrections is None else rows_of(chosen.corrections)
    return CalibratedSteps(tuple(map(_digits, chosen.timesteps)), rows, best, scores)


def score_of(errors: np.ndarray) -> Score:
    """The mean of (N,) errors, N >= 2, and its standard error."""
    return Score(float(errors.mean()), standard_error(errors))


def rows_of(corrections: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """Corrections as they are kept."""
    return tuple(tuple(map(_digits, row)) for row in corrections)


def _digits(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}")
