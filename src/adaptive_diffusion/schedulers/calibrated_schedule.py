"""What calibration finds for a model in one domain: the solution for each number of steps, and how it was judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..baseline.checks import check_count, check_number
from ..baseline.spacing import custom_timesteps


@dataclass(frozen=True)
class Score:
    """A solution's error on held-out noises.

    Attributes:
        mean: Mean over the noises, smaller is better.
        standard_error: Of that mean.
    """

    mean: float
    standard_error: float


@dataclass(frozen=True)
class CalibratedSteps:
    """The solution for one number of steps, and why it is this one.

    Attributes:
        timesteps: (n,) strictly decreasing from T - 1.
        corrections: (n, K + 1) of the solver's weights, see `fitting.multistep_rows`; None: DPM-Solver++(2M).
        rule: Name of the rule that made them.
        scores: Name -> held-out score, of that rule and of its rivals.
    """

    timesteps: tuple[float, ...]
    corrections: tuple[tuple[float, ...], ...] | None
    rule: str
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class CalibratedSchedule:
    """The solutions for a model in one domain.

    Attributes:
        model: Content hash of the model's file.
        guidance_scale: Weight of classifier-free guidance that they were calibrated with, >= 0.
        domain: Name of the domain whose pictures were drawn.
        num_train_timesteps: T of the model.
        metric: What the scores are, e.g. `rmse` to the converged solution.
        noises: Noises that the trajectory was measured from.
        held_out: Other noises, which the scores are of.
        steps: n -> solution of n steps, at least one.

    Raises:
        ValueError: for a grid that is none, or a number out of range.
    """

    model: str
    guidance_scale: float
    domain: str
    num_train_timesteps: int
    metric: str
    noises: int
    held_out: int
    steps: Mapping[int, CalibratedSteps]

    def __post_init__(self) -> None:
        check_number("guidance_scale", self.guidance_scale, 0)
        check_count("num_train_timesteps", self.num_train_timesteps, 2)
        check_count("noises", self.noises, 2)
        check_count("held_out", self.held_out, 2)
        if not self.steps:
            raise ValueError("a calibrated schedule needs the grid of at least one number of steps")
        for n, steps in self.steps.items():
            grid = custom_timesteps(steps.timesteps, self.num_train_timesteps)
            if len(grid) != n or grid[0] != self.num_train_timesteps - 1:
                raise ValueError(
                    f"a calibrated grid of {n} steps must have {n} timesteps, from {self.num_train_timesteps - 1} on, "
                    f"got {len(grid)} from {grid[0]:g} on"
                )
            _check_corrections(steps.corrections, n)


def schedule_from(content: Mapping[str, Any]) -> CalibratedSchedule:
    """A schedule from what `dataclasses.asdict` makes of it, whether or not it has been JSON since.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if it is none.
    """
    rest = dict(content)
    steps = {int(n): _steps(**found) for n, found in rest.pop("steps").items()}
    return CalibratedSchedule(steps=steps, **rest)


def _steps(
    timesteps: Sequence[float],
    corrections: Sequence[Sequence[float]] | None,
    rule: str,
    scores: dict[str, dict[str, float]],
) -> CalibratedSteps:
    rows = None if corrections is None else tuple(tuple(map(float, row)) for row in corrections)
    return CalibratedSteps(tuple(timesteps), rows, rule, {name: Score(**found) for name, found in scores.items()})


def _check_corrections(rows: tuple[tuple[float, ...], ...] | None, n: int) -> None:
    if rows is None:
        return
    widths = {len(row) for row in rows}
    if len(rows) != n or len(widths) != 1 or min(widths) < 3 or not np.isfinite(rows).all():
        raise ValueError(f"the corrections of {n} steps must be {n} rows of equally many finite numbers, at least 3")
