"""Calibrated schedules: choosing among solutions by held-out noises, their file, and the grid that reads it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..baseline.checks import check_count, check_number
from ..baseline.noise_schedule import NoiseSchedule
from ..baseline.spacing import custom_timesteps
from ..errors import UserError
from ..files import atomic_path

SHIPPED = Path(__file__).parents[1] / "assets" / "schedules.json"
FORMAT = "adaptive-diffusion/calibrated-schedules/2"


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


@dataclass(frozen=True, eq=False)
class Candidate:
    """Timesteps, and corrections of the solver's weights or None, that may become `CalibratedSteps`."""

    timesteps: np.ndarray
    corrections: np.ndarray | None = None


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


@dataclass(frozen=True)
class CalibratedGrid:
    """Timesteps as they were calibrated, or resampled from the nearest calibrated number of steps.

    For another n the grid with the nearest ratio of steps, of two the finer one, is taken for its quantile function:
    t at i / n' of the steps, and 0 at the end. It is linear in between in sqrt(t), where the quadratic grid is a
    straight line, and is read at multiples of 1 / n. A calibrated grid that evaluates the model at t = 0 keeps to it:
    its fractions are i / (n' - 1).

    Args:
        calibrated: The grids, of the model's domain and guidance.
    """

    calibrated: CalibratedSchedule

    def __call__(self, schedule: NoiseSchedule, n: int, /) -> np.ndarray:
        """See `Grid`; raises ValueError also for a schedule of another length than was calibrated."""
        check_count("num_inference_steps", n, 1, schedule.num_train_timesteps)
        if schedule.num_train_timesteps != self.calibrated.num_train_timesteps:
            raise ValueError(
                f"the grids were calibrated for {self.calibrated.num_train_timesteps} training timesteps and the noise "
                f"schedule has {schedule.num_train_timesteps}: calibrate this model, or choose another grid"
            )
        nearest = min(self.calibrated.steps, key=lambda known: (max(known, n) / min(known, n), -known))
        grid = np.array(self.calibrated.steps[nearest].timesteps)
        return grid if nearest == n else _resampled(grid, n)


def choose(
    candidates: Mapping[str, Candidate], score: Callable[[Candidate], np.ndarray], classical: Sequence[str]
) -> CalibratedSteps:
    """Choose among candidates of equally many steps; a calibrated one has to earn its place.

    The best calibrated one is taken if its mean error is below that of the best classical one by more than the
    standard error of their paired difference, else the classical one.

    Args:
        candidates: Name -> candidate.
        score: Gives the (N,) errors of the pictures drawn with a candidate, always from the same N >= 2 held-out
            noises; smaller is better.
        classical: Names of the candidates that know nothing of the model, at least one.

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
    if gain.mean() > _standard_error(gain):
        best = rival
    scores = {name: Score(means[name], _standard_error(error)) for name, error in errors.items()}
    chosen = candidates[best]
    rows = None if chosen.corrections is None else tuple(tuple(map(_digits, row)) for row in chosen.corrections)
    return CalibratedSteps(tuple(map(_digits, chosen.timesteps)), rows, best, scores)


def save_schedules(path: str | Path, schedules: Iterable[CalibratedSchedule]) -> None:
    """Write schedules atomically, as JSON."""
    content = {"format": FORMAT, "schedules": [asdict(schedule) for schedule in schedules]}
    with atomic_path(path) as temporary:
        temporary.write_text(_compact(json.dumps(content, indent=1)) + "\n", encoding="utf-8")


def load_schedules(path: str | Path) -> tuple[CalibratedSchedule, ...]:
    """Read what `save_schedules` wrote.

    Args:
        path: The file.

    Raises:
        UserError: if the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"there are no calibrated schedules at {path}; make them with python train.py task=schedule, or leave "
            "the path out"
        )
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); calibrate the model again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} holds no calibrated schedules of this project (format {FORMAT!r})")
    try:
        return tuple(schedule_from(found) for found in content["schedules"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); calibrate the model again") from error


def find_schedule(path: str | Path | None, model: str, domain: str, guidance_scale: float) -> CalibratedSchedule | None:
    """The schedule of a model in a domain, of several that with the nearest guidance.

    (Those of the shipped model were calibrated at guidance 1.5. `bench few_steps --guidance` measures them at others:
    with 5 steps, 70 % less error than DPM-Solver++(2M) on the quadratic grid at guidance 1, 44 to 47 % at 3, 4 to 30 %
    at 5.)

    Args:
        path: File of schedules; None: the shipped one, which may have none for this model and domain.
        model: Content hash of the model.
        domain: Name of the domain.
        guidance_scale: Weight of classifier-free guidance.

    Returns:
        The schedule; None if the shipped file has none that fits.

    Raises:
        UserError: if a file that was given has none that fits, or cannot be used.
    """
    known = load_schedules(SHIPPED if path is None else path)
    fitting = [schedule for schedule in known if (schedule.model, schedule.domain) == (model, domain)]
    if fitting:
        return min(fitting, key=lambda schedule: abs(schedule.guidance_scale - guidance_scale))
    if path is None:
        return None
    if any(schedule.model == model for schedule in known):
        raise UserError(
            f"{path} has no schedule for domain={domain}; calibrate it with python train.py task=schedule "
            f"task.domains=[{domain}], or leave scheduler.calibration.path out"
        )
    others = ", ".join(sorted({f"{schedule.model:.12}" for schedule in known}))
    raise UserError(
        f"{path} has schedules of the model {others}, and this one is {model:.12}; calibrate it with "
        "python train.py task=schedule, or leave scheduler.calibration.path out"
    )


def find_grid(path: str | Path | None, model: str, domain: str, guidance_scale: float) -> CalibratedGrid:
    """The calibrated timesteps without their weights, for any solver; arguments as for `find_schedule`.

    Raises:
        UserError: if there is no schedule that fits, shipped or in the file.
    """
    found = find_schedule(path, model, domain, guidance_scale)
    if found is None:
        raise UserError(
            f"no calibrated grid ships for this model with domain={domain}; "
            "calibrate with python train.py task=schedule, or choose another grid"
        )
    return CalibratedGrid(found)


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


def _digits(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}")


def _compact(text: str) -> str:
    """Indented JSON with every list of numbers on one line."""
    return re.sub(r"\[[\s\d.,e+-]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text)


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _resampled(grid: np.ndarray, n: int) -> np.ndarray:
    """(n,) timesteps with the quantile function of another grid; see `CalibratedGrid`."""
    if grid[-1] == 0:
        knots, fractions = grid, np.linspace(0, 1, n)
    else:
        knots, fractions = np.append(grid, 0.0), np.arange(n) / n
    root = np.interp(fractions, np.linspace(0, 1, len(knots)), np.sqrt(knots))
    return np.append(grid[0], root[1:] ** 2)  # the square of the root of T - 1 may be larger than T - 1
