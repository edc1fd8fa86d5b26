"""What training has brought so far, and when an agent counts as converged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..metrics.intervals import standard_error

NEAR_BEST = 0.02  # of the score: in quality alone, two per cent of the error
PATIENCE = 3


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The agent's deterministic choice, measured on held-out noises.

    Attributes:
        episode: Training episodes before it.
        evaluations: Model evaluations that these asked for.
        scores: (n,) rewards of the single held-out images, in the same order every time.
        quality: Mean log-ratio of the baseline's error to the agent's.
    """

    episode: int
    evaluations: int
    scores: np.ndarray
    quality: float

    @property
    def score(self) -> float:
        """Mean of the scores."""
        return float(self.scores.mean())

    @property
    def standard_error(self) -> float:
        """Of the score."""
        return standard_error(self.scores)

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "episode": self.episode,
            "evaluations": self.evaluations,
            "scores": self.scores.tolist(),
            "quality": self.quality,
        }


def converged_at(evaluations: Sequence[Evaluation]) -> int | None:
    """The first episode from which on an agent is as good as it gets, and better than it began.

    That is the first evaluation which, like the two after it, lies within 0.02 of the best score of all, and which is
    better than the first one, of the untrained agent, by more than two standard errors of the paired difference.

    Returns:
        Its episode, or None.
    """
    if not evaluations:
        return None

    best = max(e.score for e in evaluations)
    for i in range(1, len(evaluations) - PATIENCE + 1):
        stays = all(e.score >= best - NEAR_BEST for e in evaluations[i : i + PATIENCE])
        gain = evaluations[i].scores - evaluations[0].scores
        if stays and gain.mean() > 2 * standard_error(gain):
            return evaluations[i].episode

    return None


@dataclass
class Record:
    """What training has brought so far.

    Attributes:
        timesteps: Environment steps.
        returns: Return of every finished episode.
        evaluations: See `Evaluation`; the first one is of the untrained agent.
        asked: Model evaluations that the episodes asked for, each image counting.
        computed: Those that were not remembered.
        seconds: Of training and evaluating.
    """

    timesteps: int = 0
    returns: list[float] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    asked: int = 0
    computed: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON types; `Record.from_dict` reads it."""
        return {**vars(self), "evaluations": [e.to_dict() for e in self.evaluations]}

    @classmethod
    def from_dict(cls, kept: dict[str, Any]) -> Record:
        """What `to_dict` gave."""
        evaluations = [Evaluation(**{**e, "scores": np.array(e["scores"])}) for e in kept["evaluations"]]
        return cls(**{**kept, "evaluations": evaluations})

    def summary(self) -> dict[str, Any]:
        """What `train` returns, see `TuningAgent.train`."""
        converged = converged_at(self.evaluations)
        best = max(self.evaluations, key=lambda e: e.score, default=None)
        first, last = (self.evaluations[0], self.evaluations[-1]) if self.evaluations else (None, None)
        return {
            "convergence_achieved": converged is not None,
            "convergence_episode": converged,
            "total_timesteps": self.timesteps,
            "episodes": len(self.returns),
            "mean_return": float(np.mean(self.returns[-10:])) if self.returns else None,
            "untrained_score": first and first.score,
            "final_score": last and last.score,
            "final_standard_error": last and last.standard_error,
            "final_quality": last and last.quality,
            "best_score": best and best.score,
            "best_episode": best and best.episode,
            "evaluations": [
                {"episode": e.episode, "score": e.score, "standard_error": e.standard_error, "quality": e.quality}
                for e in self.evaluations
            ],
            "model_evaluations": self.asked,
            "model_evaluations_computed": self.computed,
            "seconds": self.seconds,
        }
