"""`adaptive-diffusion export`: calibrated schedules for diffusers and for programs that take a list of sigmas.

`--domain landscapes --output out` exports what ships for constant guidance; with `--guidance tuned`, what ships for the
guidance of `guidance=tuned`. A schedule of your own needs its model too, e.g.
`--file outputs/schedule/schedules.json --model FOLDER`, with the folder of a pipeline or a checkpoint.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..diffusion.guidance import name_of
from ..errors import UserError
from ..export.scheduler_folder import write_scheduler
from ..export.tables import WARNING, write_tables
from ..export.trained import Trained
from ..grids.calibrated import merged
from ..grids.calibrated_schedule import CalibratedSchedule
from ..grids.schedule_file import SHIPPED, load_schedules
from ..optimization.memory import SHIPPED as RECORDS
from ..optimization.memory import read_records
from ..program import command

TUNED = "tuned"  # names the guidance that was tuned


def main(argv: list[str]) -> None:
    """Choose one schedule of the file, and write it as a scheduler and as tables."""
    parser = argparse.ArgumentParser(prog=command("export"), description=__doc__)
    parser.add_argument("--file", type=Path, default=SHIPPED, help="file of schedules; default: the one that ships")
    parser.add_argument("--model", type=Path, help="checkpoint or pipeline folder; default: the shipped model")
    parser.add_argument("--domain", help="domain that was calibrated; needed if there are several")
    parser.add_argument(
        "--guidance",
        type=_guidance,
        help="guidance that was calibrated: a weight, tuned, or the name of another; default: the constant one",
    )
    parser.add_argument("--steps", help="numbers of steps, e.g. 5,8,10; default: all that were calibrated")
    parser.add_argument("--output", type=Path, default=Path("outputs/export"), help="folder to write to")
    options = parser.parse_args(argv)

    existing = next(path for path in (options.output, *options.output.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"--output {options.output} cannot be a folder: {existing} is a file; give another one")

    trained = Trained.of(options.model)
    if trained.identity is None and options.file == SHIPPED:
        raise UserError(
            f"--model {options.model} needs --file with steps of that pipeline; those that ship are the shipped model's"
        )
    known = in_domain(options.file, trained, options.domain)
    schedule = with_steps(guided_by(known, options.guidance, options.file, trained), options.steps)
    for path in (
        *write_scheduler(options.output, schedule, trained),
        *write_tables(options.output, schedule, trained),
    ):
        print(path)
    print(f"{schedule.origin}, {_listed(schedule.steps)} steps; draw at this guidance")
    for other in known:
        if other.guidance_scale != schedule.guidance_scale:
            print(f"also calibrated: --guidance {shlex.quote(name_of(other.guidance_scale))}")
    print(f"sigmas.json, sigmas.txt: {WARNING}")


def in_domain(file: Path, trained: Trained, domain: str | None) -> list[CalibratedSchedule]:
    """The schedules of a model in a domain, one for each guidance.

    Args:
        file: The file of schedules.
        trained: The model.
        domain: Name of the domain; None: the only one.

    Raises:
        UserError: if there is none, or several domains.
    """
    known = merged(load_schedules(file))
    if trained.identity is not None:
        known = _of_model(known, trained.identity, file)
    elif len({schedule.model for schedule in known}) > 1:
        raise UserError(f"{file} has schedules of several models; give a file with those of one")

    domains = sorted({schedule.domain for schedule in known})
    if domain is None and len(domains) > 1:
        raise UserError(f"{file} has several: give --domain, one of {_listed(domains)}")
    if domain is not None and domain not in domains:
        raise UserError(f"{file} has no schedule with --domain {domain}; there are {_listed(domains)}")
    return [schedule for schedule in known if domain in (None, schedule.domain)]


def guided_by(
    known: list[CalibratedSchedule], guidance: float | str | None, file: Path, trained: Trained
) -> CalibratedSchedule:
    """The schedule of a domain for some guidance.

    Args:
        known: The schedules of the domain.
        guidance: Weight of guidance, `tuned`, or the name of another kind; None: the only one, or the constant one.
        file: Where they come from.
        trained: The model.

    Raises:
        UserError: if there is none, or the choice is not clear.
    """
    if guidance is None:
        constant = [schedule for schedule in known if isinstance(schedule.guidance_scale, int | float)]
        found = known if len(known) == 1 else constant
    else:
        wanted = _tuned(trained, known[0].domain) if guidance == TUNED else name_of(guidance)
        found = [schedule for schedule in known if name_of(schedule.guidance_scale) == wanted]

    there = _listed(shlex.quote(name_of(schedule.guidance_scale)) for schedule in known)
    if guidance is not None and not found:
        raise UserError(f"{file} has no schedule with --guidance {name_of(guidance)}; there are {there}")
    if len(found) != 1:
        raise UserError(f"{file} has several: give --guidance, one of {there}")

    (schedule,) = found
    if schedule.num_train_timesteps != trained.process.num_train_timesteps:
        raise UserError(
            f"the steps were calibrated for {schedule.num_train_timesteps} training timesteps and the model has "
            f"{trained.process.num_train_timesteps}; give the model that was calibrated"
        )
    return schedule


def with_steps(schedule: CalibratedSchedule, steps: str | None) -> CalibratedSchedule:
    """A schedule with some of its numbers of steps, e.g. "5,8"; None: with all.

    Raises:
        UserError: for what is no number, or a number of steps that was not calibrated.
    """
    if steps is None:
        return schedule
    names = [name.strip() for name in steps.split(",")]
    if wrong := [name for name in names if not name.isdecimal()]:
        raise UserError(f"--steps must be numbers, e.g. 5,8,10, got {wrong[0]!r}")

    numbers = sorted({int(name) for name in names})
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


def _tuned(trained: Trained, domain: str) -> str:
    """The name of the guidance that ships as tuned for a model in a domain."""
    of_model = (known for known in read_records(RECORDS).known if known.model == trained.identity)
    guidance = next((known.to_config().guidance for known in of_model if known.domain == domain), None)
    if guidance is None:
        raise UserError(f"no tuned guidance ships for {domain} of this model; give --guidance by its name")
    return guidance.name


def _guidance(text: str) -> float | str:
    """A weight, or a word for guidance that is no weight."""
    with suppress(ValueError):
        return float(text)
    return text


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)
