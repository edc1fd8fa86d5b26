"""How the jobs of a sweep ended: a small file for each, which the workers of every launcher can write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

COLUMNS = {"seconds/picture": "time/per_picture_s", "evaluations/picture": "sampling/evaluations_per_picture"}
FAILED = ("FAILED", "REFUSED")
LONGEST = 100  # characters of a job's settings in a table


class Skipped(float):
    """The return value of a job that was skipped: the result of an earlier run.

    Args:
        result: That result.
        metrics: The run's metrics.
    """

    def __new__(cls, result: float, metrics: Mapping[str, float]) -> Skipped:
        """A float with metrics."""
        made = super().__new__(cls, result)
        made.metrics = dict(metrics)
        return made

    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: Counted from 0.
        settings: The job's settings on the command line, as `key=value`.
        status: RUNNING, FINISHED, SKIPPED (finished before), REFUSED (a wrong setting), FAILED or KILLED.
        reason: Why it was refused or failed, in one sentence.
        metrics: Its numbers, if it made any.
    """

    number: int
    settings: tuple[str, ...]
    status: str = "RUNNING"
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    def save(self, sweep: Path) -> None:
        """Write the file, or replace it."""
        from ..io.files import write_json

        write_json(_folder(sweep) / f"{self.number}.json", asdict(self))


def forget_jobs(sweep: Path) -> None:
    """Remove the files of an earlier sweep in the same folder."""
    for path in _folder(sweep).glob("*.json"):
        path.unlink(missing_ok=True)


def jobs_of(sweep: Path) -> list[Job]:
    """The jobs of a sweep that is over, in their order; a job that is still RUNNING was KILLED."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in _folder(sweep).glob("*.json")]
    jobs = [Job(**{**job, "settings": tuple(job["settings"])}) for job in found]
    ended = [Job(**{**vars(job), "status": "KILLED"}) if job.status == "RUNNING" else job for job in jobs]
    return sorted(ended, key=lambda job: job.number)


def table(jobs: Sequence[Job]) -> str:
    """A table of jobs as plain text, each named by the settings that not all jobs share."""
    rows = [["job", "status", *COLUMNS, ""]]
    for job, settings in zip(jobs, distinguished(jobs), strict=True):
        numbers = [f"{job.metrics[key]:.4g}" if key in job.metrics else "" for key in COLUMNS.values()]
        rows.append([f"#{job.number} {settings}"[:LONGEST], job.status, *numbers, job.reason])

    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def distinguished(jobs: Sequence[Job]) -> list[str]:
    """The settings of each job that not all jobs share; all settings of a single job."""
    shared = set.intersection(*(set(job.settings) for job in jobs)) if len(jobs) > 1 else set()
    return [" ".join(setting for setting in job.settings if setting not in shared) for job in jobs]


def failures(jobs: Sequence[Job]) -> str:
    """Which jobs failed and why, as Markdown; "" if none did."""
    failed = [
        f"- `#{job.number} {settings}`: {job.reason}"
        for job, settings in zip(jobs, distinguished(jobs), strict=True)
        if job.status in FAILED
    ]
    return "\n".join([f"{len(failed)} of {len(jobs)} jobs failed:", "", *failed]) if failed else ""


def _folder(sweep: Path) -> Path:
    return sweep / "jobs"
