"""The calibrated steps of a model: finding them in the file of schedules, and the grid made of them."""

from __future__ import annotations

import functools
import hashlib
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..diffusion.checks import check_count, check_number
from ..diffusion.guidance import Guidance
from ..diffusion.schedule import NoiseSchedule
from ..errors import Unusable, UnusableFile
from ..spelling import closest
from .calibrated_schedule import CalibratedSchedule
from .schedule_file import load_schedules, shipped_schedules

log = logging.getLogger(__name__)


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
        """See `Spacing`; raises ValueError also for a schedule of another length than was calibrated."""
        check_count("num_inference_steps", n, 1, schedule.num_train_timesteps)
        if schedule.num_train_timesteps != self.calibrated.num_train_timesteps:
            raise ValueError(
                f"the grids were calibrated for {self.calibrated.num_train_timesteps} training timesteps and the noise "
                f"schedule has {schedule.num_train_timesteps}: calibrate this model, or choose another grid"
            )

        nearest = self.nearest(n)
        grid = np.array(self.calibrated.steps[nearest].timesteps)
        return grid if nearest == n else _resampled(grid, n)

    def nearest(self, n: int) -> int:
        """The calibrated number of steps whose grid is taken for n steps."""
        return min(self.calibrated.steps, key=lambda known: (max(known, n) / min(known, n), -known))

    @property
    def origin(self) -> str:
        """Where the timesteps come from, in a few words."""
        return f"timesteps {self.calibrated.origin}"


def find_schedule(
    path: str | Path | None,
    model: str | None,
    domain: str,
    guidance_scale: float | Guidance,
    kept: str | Path | None = None,
    num_steps: int | None = None,
) -> CalibratedSchedule | None:
    """The schedule of a model in a domain; if there are several, the one with the same guidance, or the nearest.

    One that has no weights for the number of steps comes after those that have.

    Where the domain was not calibrated, the schedule of another domain is taken: calibrated steps depend on
    the model and the guidance more than on the domain. A warning tells of a name that may be misspelt. Where a pipeline
    was calibrated with another precision, size or negative prompt, its schedule is taken without the weights.

    Args:
        path: File of schedules; None: the shipped one, which may have none for this model.
        model: Content hash of the model; None: of one that does not tell.
        domain: Name of the domain.
        guidance_scale: Weight of classifier-free guidance that draws, >= 0, or `Guidance`; it decides whether the
            calibrated weights are used, see `CalibratedSchedule`.
        kept: Folder of calibrations that were made on first use, which are added to the shipped ones; None: none are.
        num_steps: Number of steps that is drawn with; None: not known yet.

    Returns:
        The schedule; None if no file was given, and none is known of the model.

    Raises:
        UnusableFile: if a file that was given has none of the model, or cannot be used.
        ValueError: for a guidance out of range.
    """
    if not isinstance(guidance_scale, Guidance):
        check_number("guidance_scale", guidance_scale, 0)
    model = model or ""
    known = merged(known_schedules(path, model, kept))
    of_the_model = [schedule for schedule in known if schedule.model == model]
    if not of_the_model:  # those of the same weights, drawn otherwise
        alike = [(differences, found) for found in known if (differences := _differences(found.model, model))]
        fewest = min((len(differences) for differences, _ in alike), default=0)
        of_the_model = [drawn_with(found, model) for differences, found in alike if len(differences) == fewest]

    if of_the_model:
        fitting = [schedule for schedule in of_the_model if schedule.domain == domain]
        if not fitting and (meant := closest(domain, (schedule.domain for schedule in of_the_model))):
            _warn_once(
                f"no steps are calibrated for a domain {domain!r}, those of another are taken; {meant!r} has some"
            )
        at = [schedule.drawn_at(guidance_scale) for schedule in fitting or of_the_model]
        return min(at, key=lambda schedule: (not _weighted(schedule, num_steps), *_distance(schedule)))

    if path is None:
        return None
    others = ", ".join(sorted({f"{schedule.model:.12}" for schedule in known}))
    raise UnusableFile(
        f"{path} has schedules of the model {others}, and this one is {model:.12}; give another path or "
        "none, or calibrate it",
        "schedule",
    )


def _weighted(schedule: CalibratedSchedule, num_steps: int | None) -> bool:
    """Whether a number of steps was calibrated, and its weights hold for what draws."""
    return num_steps in schedule.steps and schedule.weights_hold


def _distance(schedule: CalibratedSchedule) -> tuple[float, float]:
    """How far the guidance that draws is from the calibrated one; where no factor tells, a small weight is nearest."""
    known = schedule.guidance_scale
    return schedule.guidance_factor, known if isinstance(known, int | float) else math.inf


def kept_file(folder: str | Path, model: str) -> Path:
    """Where the calibrations of a model are kept that were made on first use."""
    return Path(folder) / f"{hashlib.sha256(model.encode()).hexdigest()[:16]}.json"


def set_aside(path: Path) -> Path:
    """Where a damaged file of calibrations goes, once new ones are kept."""
    return path.with_suffix(".damaged")


def known_schedules(path: str | Path | None, model: str, kept: str | Path | None) -> list[CalibratedSchedule]:
    """The schedules of a file; without one, those that ship and those that are kept."""
    if path is not None:
        return list(load_schedules(path))
    return [*shipped_schedules(), *(() if kept is None else _readable(kept_file(kept, model)))]


def _readable(path: Path) -> tuple[CalibratedSchedule, ...]:
    """The schedules of a file that is kept by the program itself; a file that cannot be read is no reason to stop."""
    try:
        return load_schedules(path) if path.exists() else ()
    except (UnusableFile, OSError) as error:
        trouble = error.trouble if isinstance(error, UnusableFile) else error  # the advice is for a file of the user's
        later = f"when the model is calibrated again, the file becomes {set_aside(path).name}"
        _warn_once(f"calibrations that were kept are not used ({trouble}); {later}")
        return ()


@functools.cache
def _warn_once(sentence: str) -> None:
    log.warning("%s", sentence)


def merged(schedules: Iterable[CalibratedSchedule]) -> list[CalibratedSchedule]:
    """The schedules, with the numbers of steps of one problem together; the first that knows a number has it."""
    found: list[CalibratedSchedule] = []
    for schedule in schedules:
        i = next((i for i, known in enumerate(found) if _of_one_problem(known, schedule)), len(found))
        before = found[i] if i < len(found) else schedule
        steps = {**schedule.steps, **before.steps}
        log_snr = before.log_snr or schedule.log_snr
        found[i : i + 1] = [replace(before, steps={n: steps[n] for n in sorted(steps)}, log_snr=log_snr)]
    return found


def _of_one_problem(one: CalibratedSchedule, other: CalibratedSchedule) -> bool:
    """Whether model, domain and guidance are the same, and the noise process as far as it is known."""
    same = (one.model, one.domain, one.guidance_scale) == (other.model, other.domain, other.guidance_scale)
    return same and (None in (one.log_snr, other.log_snr) or one.log_snr == other.log_snr)


def drawn_with(schedule: CalibratedSchedule, model: str) -> CalibratedSchedule:
    """A schedule to draw with a model: of the same weights under other settings, it says in which these differ."""
    same = model in ("", schedule.model)
    return replace(schedule, otherwise="" if same else " and ".join(_differences(schedule.model, model)))


def _differences(calibrated: str, model: str) -> list[str]:
    """In which settings two identities of one pipeline differ; in none if they are of different models."""
    (content, *then), (own, *now) = calibrated.split(" ", 3), model.split(" ", 3)
    if content != own:
        return []
    pairs = zip(("precision", "size"), then, now, strict=False)
    found = [f"{name} {a} (here {b})" for name, a, b in pairs if a != b]
    return [*found, "another negative prompt"] if then[2:] != now[2:] else found


def find_grid(
    path: str | Path | None,
    model: str | None,
    domain: str,
    guidance_scale: float | Guidance,
    kept: str | Path | None = None,
    num_steps: int | None = None,
) -> CalibratedGrid:
    """The calibrated timesteps without their weights, for any solver; arguments as for `find_schedule`.

    Raises:
        Unusable: if no schedule of the model is known, or the file has none.
        ValueError: for a guidance out of range.
    """
    found = find_schedule(path, model, domain, guidance_scale, kept, num_steps)
    if found is None:
        raise Unusable("no calibrated grid ships for this model; choose another grid, or calibrate it", "schedule")
    return CalibratedGrid(found)


def _resampled(grid: np.ndarray, n: int) -> np.ndarray:
    """(n,) timesteps with the quantile function of another grid; see `CalibratedGrid`."""
    if grid[-1] == 0:
        knots, fractions = grid, np.linspace(0, 1, n)
    else:
        knots, fractions = np.append(grid, 0.0), np.arange(n) / n
    root = np.interp(fractions, np.linspace(0, 1, len(knots)), np.sqrt(knots))
    return np.append(grid[0], root[1:] ** 2)  # the square of the root of T - 1 may be larger than T - 1
