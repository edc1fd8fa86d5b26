"""The hyperparameters of sampling as an agent turns them: residuals around a configuration that is good already."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ..diffusion.checks import check_count
from ..schedulers.configuration import DPM_SOLVER, Configuration

# A ring: an action's thirds are the solver before the prior's, the prior's, and the one after.
SOLVERS = ("unipc", DPM_SOLVER, "ipndm")
LOWEST_POWER, HIGHEST_POWER, POWER_STEP = 1.0, 4.0, 0.25
THRESHOLD_STEP = 0.05


@dataclass(frozen=True)
class Knobs:
    """Actions in [-1, 1]^4 and the configurations they stand for; 0 is the prior, and its neighbours are near it.

    Values differ from the prior's by multiples (of 1 step, 0.05 of threshold, 0.25 of power), so that what was measured
    once is met again.

    Args:
        min_steps: Fewest steps, >= 1.
        prior: What action 0 stands for.
        max_steps: Most steps.

    Raises:
        ValueError: unless min_steps <= the prior's steps <= max_steps.
    """

    min_steps: int = 4
    prior: Configuration = field(default_factory=Configuration)
    max_steps: int = 20

    def __post_init__(self) -> None:
        for name in ("min_steps", "max_steps"):
            object.__setattr__(self, name, check_count(name, getattr(self, name), 1))
        if self.min_steps > self.max_steps:
            raise ValueError(f"min_steps must be at most max_steps, got {self.min_steps} > {self.max_steps}")
        check_count("num_steps", self.prior.num_steps, self.min_steps, self.max_steps)

    @property
    def width(self) -> int:
        """Numbers of an action."""
        return 4

    def configuration(self, action: np.ndarray) -> Configuration:
        """What an action stands for.

        Args:
            action: (4,) steps, threshold, power and solver, each in [-1, 1].
        """
        steps, threshold, power, solver = action
        prior = self.prior
        place = SOLVERS.index(prior.solver) + min(int((solver + 1) / 2 * 3), 2) - 1
        configuration = replace(
            prior,
            num_steps=round(between(steps, self.min_steps, prior.num_steps, self.max_steps)),
            progress_power=in_steps(power, LOWEST_POWER, prior.progress_power, HIGHEST_POWER, POWER_STEP),
            solver=SOLVERS[place % len(SOLVERS)],
        )
        if configuration.solver != DPM_SOLVER:
            return configuration

        limit = in_steps(threshold, 0.0, prior.adaptive_threshold, 1.0, THRESHOLD_STEP)
        return replace(configuration, adaptive_threshold=limit)


@dataclass(frozen=True)
class DerivedKnobs(Knobs):
    """Knobs that are made of others, around the same prior.

    Args:
        others: The others.
    """

    min_steps: int = field(init=False)
    prior: Configuration = field(init=False)
    max_steps: int = field(init=False)
    others: Knobs

    def __post_init__(self) -> None:
        for name in ("min_steps", "prior", "max_steps"):
            object.__setattr__(self, name, getattr(self.others, name))


@dataclass(frozen=True)
class StepKnobs(DerivedKnobs):
    """An action of one number, the steps; everything else stays the prior's.

    Args:
        others: Knobs whose first action is for the steps.
    """

    @property
    def width(self) -> int:
        """See `Knobs`."""
        return 1

    def configuration(self, action: np.ndarray) -> Configuration:
        """See `Knobs`."""
        return self.others.configuration(np.append(action, np.zeros(self.others.width - 1)))


def between(action: float, low: float, prior: float, high: float) -> float:
    """-1 -> low, 0 -> prior, 1 -> high, straight lines in between."""
    return float(prior + action * (high - prior if action > 0 else prior - low))


def in_steps(action: float, lowest: float, prior: float, highest: float, step: float) -> float:
    """From the prior by a multiple of a step, within the bounds; these are at least the prior."""
    lowest, highest = min(lowest, prior), max(highest, prior)
    by = round((between(action, lowest, prior, highest) - prior) / step) * step
    return min(max(round(prior + by, 6), lowest), highest) if by else prior
