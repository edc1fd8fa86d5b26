"""What a configuration is worth is measured on noises that nobody tuned on; the default stays unless it is beaten."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..rl.convergence import standard_error
from ..rl.drawing import Drawing
from ..rl.lockstep import Drawn, drawing_run, run_together
from ..rl.noises import FixedNoises
from ..rl.reward import Measurement, Reward
from .configuration import ADAPTIVE, DomainConfig


@dataclass(frozen=True, eq=False)
class Verified:
    """A configuration's pictures, measured.

    Attributes:
        config: The configuration.
        measurement: Of its N pictures, the default being the baseline.
        scores: (N,) rewards.
    """

    config: DomainConfig
    measurement: Measurement
    scores: np.ndarray

    @property
    def speed(self) -> float:
        """Evaluations of the default / evaluations."""
        return self.measurement.baseline_evaluations / self.measurement.evaluations

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        quality = self.measurement.quality
        return {
            "hyperparameters": self.config.to_dict(),
            "score": float(self.scores.mean()),
            "score_error": standard_error(self.scores),
            "quality": float(quality.mean()),
            "quality_error": standard_error(quality),
            "error": float(self.measurement.errors.mean()),
            "error_error": standard_error(self.measurement.errors),
            "evaluations": self.measurement.evaluations,
            "seconds": self.measurement.seconds,
        }


@dataclass(frozen=True, eq=False)
class Verdict:
    """What came of a verification.

    Attributes:
        chosen: The best, or the default.
        improved: Whether it is not the default.
        reason: Why, in one sentence.
        all: Everything that was measured, the default first.
    """

    chosen: Verified
    improved: bool
    reason: str
    all: tuple[Verified, ...]

    @property
    def quality_error(self) -> float | None:
        """Standard error of the quality of what was chosen; of the default, its own measure, that of its best rival.

        None where the default had no rival.
        """
        others = [verified for verified in self.all if verified is not self.chosen]
        best = self.chosen if self.improved else max(others, key=lambda v: float(v.scores.mean()), default=None)
        return None if best is None else standard_error(best.measurement.quality)


def verify(
    candidates: Iterable[DomainConfig], default: DomainConfig, drawing: Drawing, reward: Reward, noises: FixedNoises
) -> Verdict:
    """Choose among configurations and the default, by pictures from noises that none of them was tuned on.

    A candidate with another solver also competes with the adaptive scheduler at the same number of evaluations, and is
    out if its mean quality is below that one's. Of the others the one with the highest mean reward is taken, if it
    exceeds the default's by more than two standard errors of their paired difference.

    Args:
        candidates: Configurations.
        default: What has to be beaten.
        drawing: What is drawn.
        reward: What counts.
        noises: The noises.

    Raises:
        ValueError: for a reward that is not a finite number, naming the configuration.
    """
    candidates = list(candidates)
    rivals = {c: replace(default, num_steps=c.num_steps) for c in candidates if c.solver != ADAPTIVE}
    drawn = {c: _draw(c, drawing, noises) for c in dict.fromkeys([default, *candidates, *rivals.values()])}
    errors, baseline = drawn[default]
    verified: dict[DomainConfig, Verified] = {}
    for config, (own, cost) in drawn.items():
        measurement = Measurement(own, cost.evaluations, cost.seconds, errors, baseline.evaluations, baseline.seconds)
        scores = np.asarray(reward(measurement), np.float64)
        if not np.isfinite(scores).all():
            raise ValueError(f"the reward of {config} is not a finite number: the model or the solver diverges there")
        verified[config] = Verified(config, measurement, scores)

    def quality(config: DomainConfig) -> float:
        return float(verified[config].measurement.quality.mean())

    allowed = [c for c in verified if c not in rivals or quality(c) >= quality(rivals[c])]
    best = max(allowed, key=lambda c: float(verified[c].scores.mean()))
    gain = verified[best].scores - verified[default].scores
    error = standard_error(gain)
    improved = bool(best != default and gain.mean() > 2 * error)
    if improved:
        reason = f"better than the default by {gain.mean():.3f} +- {error:.3f} on {len(gain)} fresh noises"
    elif best == default:
        reason = f"nothing found is better than the default on {len(gain)} fresh noises; the default stays"
    else:
        reason = (
            f"better than the default by only {gain.mean():.3f} +- {error:.3f} on {len(gain)} fresh noises; the "
            "default stays"
        )
    chosen = verified[best if improved else default]
    return Verdict(chosen, improved, reason, tuple(verified.values()))


def _draw(config: DomainConfig, drawing: Drawing, noises: FixedNoises) -> tuple[np.ndarray, Drawn]:
    """Errors of all pictures, and the last batch with what a picture cost."""
    errors, seconds = [], []
    for batch in range(noises.batches):
        scheduler = config.scheduler(drawing.settings)
        run = drawing_run(scheduler, noises.x_T(batch), drawing.conditions(noises.pictures))
        drawn = run_together(drawing.denoiser, [run])[0]
        errors.append(noises.errors(batch, drawn.images))
        seconds.append(drawn.seconds)
    return np.concatenate(errors), replace(drawn, seconds=float(np.mean(seconds)))
