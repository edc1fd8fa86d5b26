"""What a configuration is worth is measured on noises that nobody tuned on; the default stays unless it is beaten."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..diffusion.guided_model import GuidedModel
from ..rl.convergence import standard_error
from ..rl.knobs import ADAPTIVE
from ..rl.lockstep import drawing_run, run_together
from ..rl.noises import FixedNoises
from ..rl.reward import Measurement, Reward
from .configuration import DomainConfig


@dataclass(frozen=True, eq=False)
class Verified:
    """A configuration's pictures, measured.

    Attributes:
        config: The configuration.
        batches: What was measured of each batch, the default being the baseline.
        reward: What counts.
    """

    config: DomainConfig
    batches: tuple[Measurement, ...]
    reward: Reward

    @cached_property
    def scores(self) -> np.ndarray:
        """(n,) independent rewards: of the pictures, or of the batches where seconds count, one timing for each."""
        scores = [np.asarray(self.reward(batch), np.float64) for batch in self.batches]
        return np.array([s.mean() for s in scores]) if _timed(self.reward) else np.concatenate(scores)

    @property
    def quality(self) -> np.ndarray:
        """(N,) qualities of the pictures."""
        return np.concatenate([batch.quality for batch in self.batches])

    @property
    def speed(self) -> float:
        """Cost of the default / cost, in what the reward counts; the harmonic mean over batches."""
        return float(1 / (1 - np.mean([batch.speed(self.reward.unit) for batch in self.batches])))

    def to_dict(self) -> dict[str, Any]:
        """JSON types; `seconds_error` is None for a single batch."""
        errors = np.concatenate([batch.errors for batch in self.batches])
        seconds = np.array([batch.seconds for batch in self.batches])
        return {
            "hyperparameters": self.config.to_dict(),
            "score": float(self.scores.mean()),
            "score_error": standard_error(self.scores),
            "quality": float(self.quality.mean()),
            "quality_error": standard_error(self.quality),
            "error": float(errors.mean()),
            "error_error": standard_error(errors),
            "evaluations": self.batches[0].evaluations,
            "seconds": float(seconds.mean()),
            "seconds_error": standard_error(seconds) if len(seconds) > 1 else None,
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

        None where the default had no rival that draws other pictures.
        """
        rivals = [verified for verified in self.all if verified.quality.any()]
        best = self.chosen if self.improved else max(rivals, key=lambda v: float(v.scores.mean()), default=None)
        return None if best is None else standard_error(best.quality)


def verify(
    candidates: Iterable[DomainConfig], default: DomainConfig, drawing: GuidedModel, reward: Reward, noises: FixedNoises
) -> Verdict:
    """Choose among configurations and the default, by pictures from noises that none of them was tuned on.

    A candidate with another solver also competes with the adaptive scheduler at the same number of evaluations, and is
    out if its mean quality is below that one's. Of the others the one with the highest mean reward is taken, if it
    exceeds the default's by more than two standard errors of their paired difference.

    All are drawn batch by batch in turn, so that whatever else the machine does strikes them alike. Where the reward
    counts seconds, each is drawn once before, untimed, and the standard errors are those over batches, since the
    pictures of a batch share one timing.

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
    rivals = {c: _rival(default, c) for c in candidates if c.solver != ADAPTIVE}
    configs = list(dict.fromkeys([default, *candidates, *rivals.values()]))
    batches: dict[DomainConfig, list[Measurement]] = {config: [] for config in configs}
    for config in configs if _timed(reward) else []:
        _draw(config, drawing, noises, 0)
    for batch in range(noises.batches):
        drawn = {config: _draw(config, drawing, noises, batch) for config in configs}
        for config in configs:
            batches[config].append(Measurement(*drawn[config], *drawn[default]))
    verified = {config: Verified(config, tuple(batches[config]), reward) for config in configs}
    for config in configs:
        if not np.isfinite(verified[config].scores).all():
            raise ValueError(f"the reward of {config} is not a finite number: the model or the solver diverges there")

    def quality(config: DomainConfig) -> float:
        return float(verified[config].quality.mean())

    allowed = [c for c in verified if c not in rivals or quality(c) >= quality(rivals[c])]
    best = max(allowed, key=lambda c: float(verified[c].scores.mean()))
    gain = verified[best].scores - verified[default].scores
    error = standard_error(gain)
    improved = bool(best != default and gain.mean() > 2 * error)
    where = f"on {len(gain)} {'batches of ' if _timed(reward) else ''}fresh noises"
    if improved:
        reason = f"better than the default by {gain.mean():.3f} +- {error:.3f} {where}"
    elif best == default:
        reason = f"nothing found is better than the default {where}; the default stays"
    else:
        reason = f"better than the default by only {gain.mean():.3f} +- {error:.3f} {where}; the default stays"
    chosen = verified[best if improved else default]
    return Verdict(chosen, improved, reason, tuple(verified.values()))


def _timed(reward: Reward) -> bool:
    return reward.unit == "seconds"


def _rival(default: DomainConfig, other: DomainConfig) -> DomainConfig:
    """The adaptive scheduler with as many steps as another solver."""
    source = f"the default with {other.num_steps} steps, tried beside {other.solver}"
    return replace(default, num_steps=other.num_steps, source=source)


def _draw(config: DomainConfig, drawing: GuidedModel, noises: FixedNoises, batch: int) -> tuple[np.ndarray, int, float]:
    """Errors of a batch's pictures, and the evaluations and seconds of each."""
    scheduler = config.scheduler(drawing.settings)
    run = drawing_run(scheduler, noises.x_T(batch))
    drawn = run_together(drawing, [run])[0]
    return noises.errors(batch, drawn.states), drawn.evaluations, drawn.seconds
