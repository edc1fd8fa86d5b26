"""The hyperparameters of sampling as an agent turns them: residuals around a configuration that is good already."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..diffusion.checks import check_choice, check_count, check_number
from ..diffusion.guidance import Constant, Guidance, Interval
from ..grids.spacings import PowerGrid
from ..schedulers.adaptive import AdaptiveScheduler
from ..schedulers.core import SchedulerCore
from ..schedulers.unipc_ipndm import IPNDMScheduler, UniPCScheduler


@dataclass(eq=False, repr=False)
class PowerUniPC(UniPCScheduler):
    """UniPC on the power grid, whatever the number of steps."""

    progress_power: float = 2.0

    @property
    def spacing(self) -> PowerGrid:
        """See `SchedulerCore`."""
        return PowerGrid(self.progress_power)


@dataclass(eq=False, repr=False)
class PowerIPNDM(IPNDMScheduler):
    """iPNDM on the power grid, whatever the number of steps."""

    progress_power: float = 2.0

    @property
    def spacing(self) -> PowerGrid:
        """See `SchedulerCore`."""
        return PowerGrid(self.progress_power)


ADAPTIVE = "dpm_solver"  # the solver of `AdaptiveScheduler`
OTHERS = {"unipc": PowerUniPC, "ipndm": PowerIPNDM}
SOLVERS = ("unipc", ADAPTIVE, "ipndm")  # a ring: an action's thirds are the one before the prior's, that, the one after
LOWEST_POWER, HIGHEST_POWER, POWER_STEP = 1.0, 4.0, 0.25
THRESHOLD_STEP = 0.05


@dataclass(frozen=True)
class Configuration:
    """One way of sampling; the defaults are those of `AdaptiveScheduler` at ten steps.

    Attributes:
        num_steps: Model evaluations per image, >= 1.
        adaptive_threshold: Of `AdaptiveScheduler`, in [0, 1]; other solvers do not look at it.
        progress_power: Power of the grid, in (0, 10].
        solver: `dpm_solver` (DPM-Solver++(2M) in an `AdaptiveScheduler`), `unipc` or `ipndm`.
        guidance_weight: Weight of classifier-free guidance; None: that of the model that is drawn, at all noise levels.
        guidance_low: Log-SNR from which on there is guidance, see `Interval`; None: from the beginning.
        guidance_high: Log-SNR up to which there is; None: to the end.

    Raises:
        ValueError: for an unknown solver, or a value out of range.
    """

    num_steps: int = 10
    adaptive_threshold: float = 0.5
    progress_power: float = 2.0
    solver: str = ADAPTIVE
    guidance_weight: float | None = None
    guidance_low: float | None = None
    guidance_high: float | None = None

    def __post_init__(self) -> None:
        numbers = {
            "num_steps": check_count("num_steps", self.num_steps, 1),
            "adaptive_threshold": check_number("adaptive_threshold", self.adaptive_threshold, 0, 1),
            "progress_power": check_number("progress_power", self.progress_power, 0, 10, above=True),
        }
        check_choice("solver", self.solver, SOLVERS)
        if self.guidance_weight is None and (self.guidance_low, self.guidance_high) != (None, None):
            raise ValueError("an interval of guidance needs a guidance_weight")
        self.guidance  # noqa: B018  # refuses what is out of range
        guidance = {name: getattr(self, name) for name in ("guidance_weight", "guidance_low", "guidance_high")}
        numbers |= {name: float(value) for name, value in guidance.items() if value is not None}
        for name, value in numbers.items():  # of NumPy, which JSON does not take
            object.__setattr__(self, name, value)

    @property
    def guidance(self) -> Guidance | None:
        """What guides instead of the model's own guidance; None: that."""
        if self.guidance_weight is None:
            return None
        low, high = self.guidance_low, self.guidance_high
        if low is None and high is None:
            return Constant(self.guidance_weight)
        return Interval(self.guidance_weight, -math.inf if low is None else low, math.inf if high is None else high)

    def scheduler(self, settings: Mapping[str, Any]) -> SchedulerCore:
        """Grid and solver, its timesteps set; `set_timesteps` keeps to the same kind of grid.

        Args:
            settings: What the model decides, see `GuidedModel.settings`.
        """
        if self.solver == ADAPTIVE:
            return self._adaptive(settings)
        scheduler = OTHERS[self.solver](progress_power=self.progress_power, **settings)
        scheduler.set_timesteps(self.num_steps)
        return scheduler

    def _adaptive(self, settings: Mapping[str, Any]) -> AdaptiveScheduler:
        return AdaptiveScheduler(
            num_inference_steps=self.num_steps,
            adaptive_threshold=self.adaptive_threshold,
            progress_power=self.progress_power,
            **{"calibration": None, **settings},
        )

    def to_dict(self) -> dict[str, Any]:
        """The hyperparameters by name; of the guidance only what is not the model's."""
        return {name: value for name in HYPERPARAMETERS if (value := getattr(self, name)) is not None}

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.to_dict().items())


HYPERPARAMETERS = tuple(f.name for f in fields(Configuration))


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
    prior: Configuration = Configuration()
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
            progress_power=moved(power, LOWEST_POWER, prior.progress_power, HIGHEST_POWER, POWER_STEP),
            solver=SOLVERS[place % len(SOLVERS)],
        )
        if configuration.solver != ADAPTIVE:
            return configuration

        limit = moved(threshold, 0.0, prior.adaptive_threshold, 1.0, THRESHOLD_STEP)
        return replace(configuration, adaptive_threshold=limit)


def between(action: float, low: float, prior: float, high: float) -> float:
    """-1 -> low, 0 -> prior, 1 -> high, straight lines in between."""
    return float(prior + action * (high - prior if action > 0 else prior - low))


def moved(action: float, lowest: float, prior: float, highest: float, step: float) -> float:
    """From the prior by a multiple of a step, within the bounds; these are at least the prior."""
    lowest, highest = min(lowest, prior), max(highest, prior)
    by = round((between(action, lowest, prior, highest) - prior) / step) * step
    return min(max(round(prior + by, 6), lowest), highest) if by else prior
