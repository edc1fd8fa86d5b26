"""How the jobs of a sweep ended: a small file for each, which the workers of every launcher can write."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..io.addresses import without_login
from ..io.counted import count
from ..io.files import write_json
from .tracker import Finished

log = logging.getLogger(__name__)

RESULT = "result"  # the metric of a job that has no other: what it returned to the sweeper
COLUMNS = {  # heading -> metric; a column that no job has is left out
    "seconds/image": "time/seconds_per_image",
    "evaluations/image": "sampling/nfe",
    "passes/image": "sampling/passes",
    "result": RESULT,
}
FAILED = ("FAILED", "REFUSED")
DONE = ("FINISHED", "SKIPPED")
PLAN = "plan"
NOT_BEGUN = "NOT BEGUN"
MOST_NOT_BEGUN = 20  # rows of a table; of the others it has the number
QUIET = ("paths.", "tracking", "hydra.")  # settings that say where a job writes, and not what it does
LONGEST = 100  # characters of a job's settings in a table


class Skipped(float):
    """The return value of a job that was skipped: the result of an earlier run.

    Args:
        result: That result.
        run: The earlier run.
    """

    def __new__(cls, result: float, run: Finished) -> Skipped:
        """A float with the run that it comes from."""
        made = super().__new__(cls, result)
        made.run = run
        return made

    def __getnewargs__(self) -> tuple[float, Finished]:  # type: ignore[override]
        """What a copy is made from, as in the process that a launcher's worker answers to."""
        return float(self), self.run

    run: Finished


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: Counted from 0.
        settings: The job's settings as `key=value`, texts as they were meant: `label=a face`, without Hydra's escapes.
        status: RUNNING, FINISHED, SKIPPED (finished before), REFUSED (a wrong setting), FAILED, KILLED or NOT BEGUN.
        reason: Why it was refused or failed, in one sentence.
        metrics: Its numbers, if it made any.
        folder: Where its files are, or those of the run that had finished before; "" if nowhere.
    """

    number: int
    settings: tuple[str, ...]
    status: str = "RUNNING"
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    folder: str = ""

    def save(self, sweep: Path) -> None:
        """Write the file, or replace it; without passwords."""
        cleaned = {"settings": _for_files(self.settings), "reason": without_login(self.reason)}
        write_json(_folder(sweep) / f"{self.number}.json", asdict(self) | cleaned)


def plan_jobs(sweep: Path, settings: Sequence[Sequence[str]]) -> None:
    """Forget an earlier sweep in the same folder, and keep what the jobs of this sweep will be.

    Args:
        sweep: Folder of the sweep.
        settings: Of each job, as `key=value`; () where they are not known beforehand.
    """
    for path in _folder(sweep).glob("*.json"):
        path.unlink(missing_ok=True)
    if settings:
        write_json(_folder(sweep) / f"{PLAN}.json", [_for_files(job) for job in settings])


def planned_jobs(sweep: Path) -> list[Job]:
    """What the jobs of a sweep will be; [] where it is not known beforehand."""
    path = _folder(sweep) / f"{PLAN}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        return [Job(number=number, settings=tuple(job), status=NOT_BEGUN) for number, job in enumerate(content)]
    except (ValueError, TypeError) as error:
        log.warning("left out: %s is damaged (%s)", path, error)
        return []


def jobs_of(sweep: Path) -> list[Job]:
    """The jobs of a sweep that is over, in their order; a job that is still RUNNING was KILLED."""
    found = {job.number: job for job in planned_jobs(sweep)}
    for path in _folder(sweep).glob("*.json"):
        if path.stem != PLAN and (job := _read(path)) is not None:
            found[job.number] = replace(job, status="KILLED") if job.status == "RUNNING" else job

    return [found[number] for number in sorted(found)]


def _read(path: Path) -> Job | None:
    """What a file says of a job; None, with a warning, if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Job(**{**content, "settings": tuple(content["settings"])})
    except (ValueError, TypeError, KeyError) as error:
        log.warning("left out: %s is damaged (%s)", path, error)
        return None


def table(jobs: Sequence[Job], sweep: Sequence[Job] = ()) -> str:
    """A table of jobs as plain text, each named by the settings that not all jobs of its sweep share.

    Args:
        jobs: The jobs to show.
        sweep: All jobs of the sweep; () if these are all.
    """
    waiting = [job for job in jobs if job.status == NOT_BEGUN]
    hidden = {job.number for job in waiting[MOST_NOT_BEGUN:]}
    shown = [job for job in jobs if job.number not in hidden]
    columns = {name: key for name, key in COLUMNS.items() if any(key in job.metrics for job in shown)}

    names = distinguished(sweep or jobs)
    rows = [["job", "status", *columns, ""]]
    for job in shown:
        numbers = [f"{job.metrics[key]:.4g}" if key in job.metrics else "" for key in columns.values()]
        rows.append([f"#{job.number} {names[job.number]}"[:LONGEST], job.status, *numbers, job.reason])

    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    rest = f"{count(len(hidden), 'more job')} {'was' if len(hidden) == 1 else 'were'} not begun"
    return "\n".join([*lines, rest] if hidden else lines)


def telling(settings: Iterable[str]) -> list[str]:
    """The settings that say what a job does, without those that say where it writes."""
    return [setting for setting in settings if not setting.lstrip("+~").startswith(QUIET)]


def distinguished(jobs: Sequence[Job]) -> dict[int, str]:
    """Number of a job -> its settings that not all jobs share; of a single job, the settings that say what it does."""
    if len(jobs) == 1:
        return {job.number: " ".join(telling(job.settings)) for job in jobs}
    return {number: " ".join(settings) for number, settings in varied(jobs).items()}


def varied(jobs: Sequence[Job]) -> dict[int, tuple[str, ...]]:
    """Number of a job -> its settings that not all jobs share."""
    shared = set.intersection(*(set(job.settings) for job in jobs)) if jobs else set()
    return {job.number: tuple(setting for setting in job.settings if setting not in shared) for job in jobs}


def failures(jobs: Sequence[Job]) -> str:
    """Which jobs failed and why, as Markdown; "" if none did."""
    names = distinguished(jobs)
    failed = [f"- `#{job.number} {names[job.number]}`: {job.reason}" for job in jobs if job.status in FAILED]
    return "\n".join([f"{count_failures(jobs)}:", "", *failed]) if failed else ""


def count_failures(jobs: Sequence[Job]) -> str:
    """How many jobs failed or were refused, e.g. "1 of 3 jobs failed, 1 was refused"; "" if none."""
    failed, refused = (sum(job.status == status for job in jobs) for status in FAILED)
    of_all = f" of {count(len(jobs), 'job')}"
    was_refused = f"{'was' if refused == 1 else 'were'} refused"
    if failed and refused:
        return f"{failed}{of_all} failed, {refused} {was_refused}"
    return f"{failed}{of_all} failed" if failed else f"{refused}{of_all} {was_refused}" if refused else ""


def _for_files(settings: Iterable[str]) -> list[str]:
    return [without_login(setting) for setting in settings]


def _folder(sweep: Path) -> Path:
    return sweep / "jobs"
