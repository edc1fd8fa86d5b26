"""One way of sampling in a few numbers and a name: steps, grid, solver, guidance; and the scheduler it describes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..diffusion.checks import check_choice, check_count, check_number
from ..diffusion.guidance import Constant, Guidance, Interval
from ..grids.spacings import PowerGrid
from .adaptive import AdaptiveScheduler
from .core import SchedulerCore
from .unipc_ipndm import IPNDMScheduler, UniPCScheduler


@dataclass(eq=False, repr=False)
class OnPowerGrid:
    """A scheduler on the power grid, whatever the number of steps."""

    progress_power: float = 2.0

    @property
    def spacing(self) -> PowerGrid:
        """See `SchedulerCore`."""
        return PowerGrid(self.progress_power)


@dataclass(eq=False, repr=False)
class PowerUniPC(OnPowerGrid, UniPCScheduler):
    """UniPC on the power grid."""


@dataclass(eq=False, repr=False)
class PowerIPNDM(OnPowerGrid, IPNDMScheduler):
    """iPNDM on the power grid."""


DPM_SOLVER = "dpm_solver"  # the solver of `AdaptiveScheduler`
OTHERS = {"unipc": PowerUniPC, "ipndm": PowerIPNDM}


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
    solver: str = DPM_SOLVER
    guidance_weight: float | None = None
    guidance_low: float | None = None
    guidance_high: float | None = None

    def __post_init__(self) -> None:
        numbers = {
            "num_steps": check_count("num_steps", self.num_steps, 1),
            "adaptive_threshold": check_number("adaptive_threshold", self.adaptive_threshold, 0, 1),
            "progress_power": check_number("progress_power", self.progress_power, 0, 10, above=True),
        }
        check_choice("solver", self.solver, (DPM_SOLVER, *OTHERS))
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
        if self.solver == DPM_SOLVER:
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
