"""The file of calibrated schedules that calibrations add to, several at once; finished steps are kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..diffusion.guidance import name_of
from ..diffusion.guided_model import GuidedModel
from ..diffusion.kept_guidance import kept_guidance
from ..errors import UnusableFile
from ..grids.calibrated import set_aside
from ..grids.calibrated_schedule import CalibratedSchedule
from ..grids.schedule_file import read_schedules, save_schedules
from ..io.locks import in_turn
from .identity import fingerprint_of
from .recipe import CalibrationRecipe

CALIBRATION = "0.1.0"  # version whose steps a calibration still finds; raised when a change of the code alters them


@dataclass(frozen=True)
class ScheduleFile:
    """A file of schedules, to which several calibrations may add at once.

    Args:
        path: The file, which may be missing.
    """

    path: Path

    def read(self) -> list[CalibratedSchedule]:
        """All schedules that the file holds by now."""
        return self._read()[0]

    def set_aside_if_damaged(self) -> None:
        """Rename a file that cannot be read, so that a calibration makes a new one."""
        try:
            self.read()
        except (UnusableFile, OSError):
            os.replace(self.path, set_aside(self.path))

    def finished(self, model: GuidedModel, recipe: CalibrationRecipe) -> CalibratedSchedule | None:
        """The wanted numbers of steps that the file holds by the same recipe; None if it holds none of them."""
        return _finished(*self._read(), model, recipe)

    def replaced(self, model: GuidedModel, recipe: CalibrationRecipe) -> list[int]:
        """The wanted numbers of steps that the file holds by another recipe, and that a calibration replaces."""
        known, recipes = self._read()
        held = {n for schedule in known if _same(schedule, model) for n in schedule.steps}
        done = _finished(known, recipes, model, recipe)
        return sorted(held & set(recipe.steps) - set(done.steps if done else ()))

    def add(self, model: GuidedModel, schedule: CalibratedSchedule, n: int, recipe: CalibrationRecipe) -> None:
        """Add a number of steps; what other processes added meanwhile stays."""
        with in_turn(self.path):
            known, recipes = self._read()
            before = {known_n: steps for s in known if _alike(s, schedule) for known_n, steps in s.steps.items()}
            merged = replace(schedule, steps={**before, n: schedule.steps[n]})
            others = [_without(s, n) if _same(s, model) else s for s in known if not _alike(s, schedule)]
            save_schedules(
                self.path, [*filter(None, others), merged], {**recipes, _name(model, n): _hash(model, recipe, n)}
            )

    def _read(self) -> tuple[list[CalibratedSchedule], dict[str, str]]:
        """The schedules, and how they were made; both of one moment."""
        if not self.path.exists():
            return [], {}
        schedules, recipes = read_schedules(self.path)
        return list(schedules), recipes

    def calibrate(
        self, model: GuidedModel, recipe: CalibrationRecipe, progress: Callable[[int], None] | None = None
    ) -> Iterator[tuple[CalibratedSchedule, int]]:
        """Calibrate the numbers of steps that the file lacks.

        Yields:
            A schedule and the number of steps that was calibrated, as soon as it is in the file.
        """
        done = self.finished(model, recipe)
        rest = [n for n in dict.fromkeys(recipe.steps) if done is None or n not in done.steps]
        if not rest:
            return
        fingerprint = fingerprint_of(model)  # once: it hashes the weights, or evaluates the model
        seen = set[int]()
        for schedule in recipe.only(rest).calibrate(model, progress):
            (n,) = schedule.steps.keys() - seen
            seen.add(n)
            schedule = replace(schedule, fingerprint=fingerprint)
            self.add(model, schedule, n, recipe)
            yield schedule, n


def _finished(
    known: Iterable[CalibratedSchedule], recipes: Mapping[str, str], model: GuidedModel, recipe: CalibrationRecipe
) -> CalibratedSchedule | None:
    """See `ScheduleFile.finished`."""
    wanted = {n for n in recipe.steps if recipes.get(_name(model, n)) == _hash(model, recipe, n)}
    for schedule in known:
        fits = _same(schedule, model) and not schedule.drawn_on(model.process).otherwise
        if fits and (steps := {n: s for n, s in schedule.steps.items() if n in wanted}):
            return replace(schedule, steps=steps)
    return None


def _name(model: GuidedModel, n: int) -> str:
    return f"{model.identity} {model.domain} {name_of(model.guidance_scale)} {n}"


def _hash(model: GuidedModel, recipe: CalibrationRecipe, n: int) -> str:
    labels = {} if model.mixture is None else {"labels": model.mixture.content}
    content = {**recipe.decides(n), **labels, "version": CALIBRATION}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _alike(a: CalibratedSchedule, b: CalibratedSchedule) -> bool:
    """Whether two schedules differ in their steps only, so that they can be one."""
    return replace(a, steps=b.steps).as_calibrated == b.as_calibrated


def _without(schedule: CalibratedSchedule, n: int) -> CalibratedSchedule | None:
    """The schedule without a number of steps; None if nothing is left."""
    steps = {known: found for known, found in schedule.steps.items() if known != n}
    return replace(schedule, steps=steps) if steps else None


def _same(schedule: CalibratedSchedule, model: GuidedModel) -> bool:
    """Whether a schedule is what the calibration of a model replaces."""
    return (schedule.model, schedule.domain, schedule.guidance_scale) == (
        model.identity,
        model.domain,
        kept_guidance(model.guidance_scale),
    )
