"""Configurations measured on noises on which none was tuned; the default and what is in use stay unless beaten."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..diffusion.guided_model import GuidedModel
from ..io.counted import count
from ..io.progress import Progress
from ..metrics.intervals import standard_error
from ..rl.lockstep import drawing_run, run_together
from ..rl.measurement import Measurement, Sampled
from ..rl.noises import Noises
from ..rl.reward import Reward, is_timed
from ..schedulers.configuration import DPM_SOLVER
from .configuration import DomainConfig

WORDS = {"default": "the default", "in_use": "the tuned setting in use"}  # what has to be beaten


class Gain(NamedTuple):
    """A difference of mean rewards.

    Attributes:
        mean: Mean of the paired differences.
        error: Its standard error.
    """

    mean: float
    error: float

    @property
    def sure(self) -> bool:
        """Whether it is more than two standard errors above 0."""
        return self.mean > 2 * self.error

    def over(self, what: str) -> str:
        """In words, of what was found."""
        if self.mean < 0:
            return f"worse than {what} by {-self.mean:.3f} +- {self.error:.3f}"
        return f"better than {what} by {'' if self.sure else 'only '}{self.mean:.3f} +- {self.error:.3f}"


@dataclass(frozen=True, eq=False)
class Verified:
    """Measurements of a configuration.

    Attributes:
        config: The configuration.
        batches: Measurements of each batch, relative to the default.
        reward: Scores the measurements.
    """

    config: DomainConfig
    batches: tuple[Measurement, ...]
    reward: Reward

    @cached_property
    def scores(self) -> np.ndarray:
        """(n,) independent rewards: of images, or of batches if seconds count, which the images of a batch share."""
        scores = [np.asarray(self.reward(batch), np.float64) for batch in self.batches]
        return np.array([s.mean() for s in scores]) if is_timed(self.reward) else np.concatenate(scores)

    def gain(self, other: Verified) -> Gain:
        """What its reward gains over another configuration's from the same noises."""
        gain = self.scores - other.scores
        return Gain(float(gain.mean()), standard_error(gain))

    @property
    def quality(self) -> np.ndarray:
        """(N,) qualities of the images."""
        return np.concatenate([batch.quality for batch in self.batches])

    @property
    def speed(self) -> float:
        """Cost of the default / cost, in the reward's unit; the harmonic mean over batches."""
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
            "passes": self.batches[0].passes,
            "speed": self.speed,
            "seconds": float(seconds.mean()),
            "seconds_error": standard_error(seconds) if len(seconds) > 1 else None,
        }


@dataclass(frozen=True, eq=False)
class Verdict:
    """The result of a verification.

    Attributes:
        chosen: What was found, if it is surely better; else what is in use, or where nothing is, the default.
        found: The best configuration beside the default and what is in use; None if there is no other.
        gains: What `found` gains over the `default`, and over what is `in_use`; {} if nothing was found.
        reason: Why it was chosen, in one sentence.
        all: All measurements, the default first.
    """

    chosen: Verified
    found: Verified | None
    gains: dict[str, Gain]
    reason: str
    all: tuple[Verified, ...]

    @property
    def improved(self) -> bool:
        """Whether what was found is chosen."""
        return self.chosen is self.found

    @property
    def default_stays(self) -> bool:
        """Whether the default is chosen."""
        return self.chosen is self.all[0]

    @property
    def quality_error(self) -> float | None:
        """Standard error of the chosen configuration's quality.

        The default's quality is 0 by definition. Its error is that of the best configuration with other images; None if
        there is none.
        """
        rivals = [verified for verified in self.all if verified.quality.any()]
        best = max(rivals, key=lambda v: float(v.scores.mean()), default=None) if self.default_stays else self.chosen
        return None if best is None else standard_error(best.quality)


def verify(
    candidates: Iterable[DomainConfig],
    default: DomainConfig,
    drawing: GuidedModel,
    reward: Reward,
    noises: Noises,
    *,
    in_use: DomainConfig | None = None,
    quiet: bool = True,
) -> Verdict:
    """Choose among configurations, the default and what is in use, by images from fresh noises.

    A candidate with another solver also competes with the adaptive scheduler at the same number of steps, and is out if
    its mean quality is lower. The candidate with the highest mean reward is chosen if its reward exceeds the default's,
    and that of what is in use, by more than two standard errors of their paired difference.

    Configurations take turns batch by batch, so that other work of the machine affects all of them. Where the reward
    counts seconds, each first draws a batch untimed, and standard errors are taken over batches.

    Args:
        candidates: Configurations.
        default: The configuration to beat.
        drawing: The model in the domain.
        reward: Scores the measurements.
        noises: Noises on which no candidate was tuned.
        in_use: The tuned configuration that what is found would replace; None: there is none.
        quiet: Whether nothing is said of how far it is.

    Raises:
        ValueError: for a reward that is not a finite number, naming the configuration.
    """
    # a configuration that is named twice is drawn once
    candidates = list(candidates)
    rivals = {c: _rival(default, c) for c in candidates if c.solver != DPM_SOLVER}
    to_beat = {"default": default, **({} if in_use is None else {"in_use": in_use})}
    configs = list(dict.fromkeys([*to_beat.values(), *candidates, *rivals.values()]))
    batches: dict[DomainConfig, list[Measurement]] = {config: [] for config in configs}

    for config in configs if is_timed(reward) else []:
        _draw(config, drawing, noises, 0)  # a first batch is slower
    with Progress(
        f"verifying {count(len(configs), 'configuration')}", noises.batches, unit="round", quiet=quiet
    ) as shown:
        for batch in range(noises.batches):
            drawn = {config: _draw(config, drawing, noises, batch) for config in configs}
            for config in configs:
                batches[config].append(noises.measurement.of(drawn[config], drawn[default]))
            shown.update()

    verified = {config: Verified(config, tuple(batches[config]), reward) for config in configs}
    for config in configs:
        if not np.isfinite(verified[config].scores).all():
            raise ValueError(f"the reward of {config} is not a finite number: the model or the solver diverges there")

    def quality(config: DomainConfig) -> float:
        return float(verified[config].quality.mean())

    # another solver may not win by speed with worse images than the adaptive scheduler has at the same steps
    allowed = [c for c in verified if c not in rivals or quality(c) >= quality(rivals[c])]
    finds = [verified[config] for config in allowed if config not in to_beat.values()]
    found = max(finds, key=lambda find: float(find.scores.mean()), default=None)
    return _verdict(found, {name: verified[config] for name, config in to_beat.items()}, tuple(verified.values()))


def _verdict(found: Verified | None, to_beat: dict[str, Verified], everything: tuple[Verified, ...]) -> Verdict:
    """What was found is chosen if it surely beats all that it has to; else the last of these."""
    name, kept = list(to_beat.items())[-1]
    where = f"on {len(kept.scores)} {'batches of ' if is_timed(kept.reward) else ''}fresh noises"
    stays = f"; {WORDS[name]} stays"
    if found is None:
        return Verdict(kept, None, {}, f"nothing found is better than {WORDS[name]} {where}{stays}", everything)

    gains = {name: found.gain(other) for name, other in to_beat.items()}
    compared = " and ".join(gain.over(WORDS[name]) for name, gain in gains.items())
    sure = all(gain.sure for gain in gains.values())
    reason = f"{compared} in score {where}{'' if sure else stays}"
    return Verdict(found if sure else kept, found, gains, reason, everything)


def _rival(default: DomainConfig, other: DomainConfig) -> DomainConfig:
    """The adaptive scheduler with the same number of steps as another solver."""
    source = f"the default with {other.num_steps} steps, tried beside {other.solver}"
    return replace(default, num_steps=other.num_steps, source=source)


def _draw(config: DomainConfig, drawing: GuidedModel, noises: Noises, batch: int) -> Sampled:
    """The images of a configuration from a batch of noises."""
    run = drawing_run(
        config.scheduler(drawing.settings), noises.x_T(batch), noises.rows(batch), guidance=config.guidance
    )
    return noises.sampled(batch, run_together(noises.drawing, [run])[0])
