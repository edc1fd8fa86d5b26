"""`adaptive-diffusion export`: calibrated schedules for diffusers and for programs that take a list of sigmas.

`--domain landscapes --output out` exports what ships. A schedule of your own needs its model too, e.g.
`--file outputs/schedule/schedules.json --model FOLDER`, with the folder of a pipeline or a checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..diffusion.guidance import name_of
from ..errors import UserError
from ..export.scheduler_folder import write_scheduler
from ..export.tables import WARNING, write_tables
from ..export.trained import Trained
from ..grids.calibrated import SHIPPED, load_schedules
from ..grids.calibrated_schedule import CalibratedSchedule
from ..program import command


def main(argv: list[str]) -> None:
    """Choose one schedule of the file, and write it as a scheduler and as tables."""
    parser = argparse.ArgumentParser(prog=command("export"), description=__doc__)
    parser.add_argument("--file", type=Path, default=SHIPPED, help="file of schedules; default: the one that ships")
    parser.add_argument("--model", type=Path, help="checkpoint or pipeline folder; default: the shipped model")
    parser.add_argument("--domain", help="domain that was calibrated; needed if there are several")
    parser.add_argument("--guidance", type=_guidance, help="guidance that was calibrated; needed if there are several")
    parser.add_argument("--steps", default="", help="numbers of steps, e.g. 5,8,10; default: all that were calibrated")
    parser.add_argument("--output", type=Path, default=Path("outputs/export"), help="folder to write to")
    options = parser.parse_args(argv)

    existing = next(path for path in (options.output, *options.output.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"--output {options.output} cannot be a folder: {existing} is a file; give another one")

    trained = Trained.of(options.model)
    schedule = chosen(options.file, trained, options.domain, options.guidance)
    schedule = with_steps(schedule, options.steps)
    for path in (
        *write_scheduler(options.output, schedule, trained),
        *write_tables(options.output, schedule, trained),
    ):
        print(path)
    print(f"{schedule.origin}, {_listed(schedule.steps)} steps; draw at this guidance")
    print(f"sigmas.json, sigmas.txt: {WARNING}")


def chosen(file: Path, trained: Trained, domain: str | None, guidance: float | str | None) -> CalibratedSchedule:
    """The one schedule of a file that is meant.

    Args:
        file: The file of schedules.
        trained: The model.
        domain: Name of the domain; None: the only one.
        guidance: Weight of guidance, or the name of another kind; None: the only one.

    Raises:
        UserError: if there is none, or the choice is not clear.
    """
    known = list(load_schedules(file))
    if trained.identity is not None:
        known = _of_model(known, trained.identity, file)
    elif len({schedule.model for schedule in known}) > 1:
        raise UserError(f"{file} has schedules of several models; give a file with those of one")

    known = _those(known, "domain", domain, file)
    (schedule, *_) = _those(known, "guidance", None if guidance is None else name_of(guidance), file)
    if schedule.num_train_timesteps != trained.process.num_train_timesteps:
        raise UserError(
            f"the steps were calibrated for {schedule.num_train_timesteps} training timesteps and the model has "
            f"{trained.process.num_train_timesteps}; give the model that was calibrated"
        )
    return schedule


def with_steps(schedule: CalibratedSchedule, steps: str) -> CalibratedSchedule:
    """A schedule with some of its numbers of steps, e.g. "5,8"; with all for "".

    Raises:
        UserError: for what is no number, or a number of steps that was not calibrated.
    """
    names = [name.strip() for name in steps.split(",") if name.strip()]
    if wrong := [name for name in names if not name.isdecimal()]:
        raise UserError(f"--steps must be numbers, e.g. 5,8,10, got {wrong[0]!r}")

    numbers = sorted({int(name) for name in names} or schedule.steps)
    if missing := [n for n in numbers if n not in schedule.steps]:
        raise UserError(f"--steps {missing[0]} was not calibrated; there are {_listed(sorted(schedule.steps))}")
    return replace(schedule, steps={n: schedule.steps[n] for n in numbers})


def _of_model(known: list[CalibratedSchedule], identity: str, file: Path) -> list[CalibratedSchedule]:
    """The schedules of a model."""
    found = [schedule for schedule in known if schedule.model == identity]
    if not found:
        others = _listed(sorted({f"{schedule.model:.12}" for schedule in known}))
        wanted = "--file with steps of this model" if file == SHIPPED else "--model, the model that was calibrated"
        raise UserError(f"{file} has no steps of the model {identity:.12}, only of {others}; give {wanted}")
    return found


def _those(known: list[CalibratedSchedule], name: str, value: str | None, file: Path) -> list[CalibratedSchedule]:
    """The schedules with a domain or guidance, which may be left out where all have the same."""
    said = [schedule.domain if name == "domain" else name_of(schedule.guidance_scale) for schedule in known]
    values, asked = sorted(set(said)), f"--{name}"
    if value is None and len(values) > 1:
        raise UserError(f"{file} has several: give {asked}, one of {_listed(values)}")
    if value is not None and value not in values:
        raise UserError(f"{file} has no schedule with {asked} {value}; there are {_listed(values)}")
    return [schedule for schedule, own in zip(known, said, strict=True) if value in (None, own)]


def _guidance(text: str) -> float | str:
    """A weight, or the name of guidance that is no weight."""
    with suppress(ValueError):
        return float(text)
    return text


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)
