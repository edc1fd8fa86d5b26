"""The jobs of a sweep of sample.py as rows: named by what varies, grouped by what is drawn, the best first."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from ..benchmark.plots import pareto_front
from ..metrics.quality import Measurement
from ..tracking.jobs import COLUMNS, DONE, Job, varied
from .job_names import setting_words
from .sample_files import GUIDANCE, GUIDANCE_OF_STEPS, PROVENANCE, QUALITY

METHOD = ("scheduler", "grid", "sampler", "num_steps", "batch_size")  # how images are drawn; the rest is what is drawn
TO_CONVERGED = ("perceptual_encoder", "lpips")
TO_REAL = ("fd_encoder", "fid")


@dataclass(frozen=True)
class Distance:
    """A distance of a job's images, with its 95 % interval where one is known."""

    name: str
    value: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        ends = "" if self.interval is None else " [{:.3g}, {:.3g}]".format(*self.interval)
        return f"{self.value:.3g}{ends}"


@dataclass(frozen=True)
class Row:
    """A job with numbers.

    Attributes:
        job: The job.
        label: What varies, in words, without what its group says.
        method: The same without the number of steps: a line of the plot.
        scheduler: Name of the scheduler.
        steps: Steps that were asked for; 0 if unknown.
        folder: Where its files are, or None.
        to_converged, to_real: Its distances, or None.
        real_caveat: Why its distance to real images says nothing by itself, as of too few images; else None.
        rough: The distance to real images by too few of them, where no job of the sweep has a better distance; or None.
        evaluations, passes, seconds: Per image, or None.
        guidance: What it drew with; "" where its files are older.
        calibrated_with: The guidance that its steps were calibrated with, where it drew with another; else "".
        best: Whether it has the smallest distance of its group.
        front: Whether no job of its group has fewer passes and a smaller distance.
        distance: The one of its distances that its group is ranked by, or None.
    """

    job: Job
    label: str
    method: str
    scheduler: str
    steps: int
    folder: Path | None
    to_converged: Distance | None
    to_real: Distance | None
    real_caveat: str | None
    rough: Distance | None
    evaluations: float | None
    passes: float | None
    seconds: float | None
    guidance: str = ""
    calibrated_with: str = ""
    best: bool = False
    front: bool = False
    distance: Distance | None = None


@dataclass(frozen=True)
class Group:
    """Jobs that draw the same in different ways, so that their distances can be compared.

    Attributes:
        name: What is drawn, where that varies; else "".
        rows: The best first.
    """

    name: str
    rows: tuple[Row, ...]


def groups_of(jobs: Sequence[Job], scheduler: str = "") -> list[Group]:
    """The jobs of a sweep that have numbers, in groups; [] without any.

    Args:
        jobs: Of the sweep.
        scheduler: The scheduler of jobs that name none; "": that of each job's configuration.
    """
    settings = varied(jobs) if len(jobs) > 1 else {job.number: () for job in jobs}
    by_guidance: dict[tuple[str, str], list[Row]] = {}
    for job in jobs:
        if job.status in DONE and job.metrics:
            ways = [s for s in settings[job.number] if _group(s) in METHOD]
            what = [s for s in settings[job.number] if _group(s) not in METHOD]
            row = _row(job, ways, scheduler)
            by_guidance.setdefault((" ".join(setting_words(what)), row.guidance), []).append(row)

    # What is drawn with other guidance has other converged solutions, also where nobody asked for it.
    names = Counter(name for name, _ in by_guidance)
    found = {
        name if names[name] == 1 else f"{name} guidance {guidance}".strip(): some
        for (name, guidance), some in by_guidance.items()
    }
    rows = [row for some in found.values() for row in some]
    if any(row.to_converged or row.to_real for row in rows):
        found = {name: [replace(row, rough=None) for row in some] for name, some in found.items()}

    # Where all is drawn in one way, there is nothing to rank.
    if len(found) > 1 and all(len(some) == 1 for some in found.values()) and len({row.label for row in rows}) == 1:
        return [Group("", tuple(replace(row, label=name) for name, (row,) in found.items()))]
    return [Group(name, _ranked(rows)) for name, rows in found.items()]


def _row(job: Job, ways: Sequence[str], default: str) -> Row:
    folder = Path(job.folder) if job.folder else None
    measured = _measured(folder) or _recorded(job)
    config = _config(folder)
    method = " ".join(setting_words([s for s in ways if _group(s) != "num_steps"]))
    scheduler = _value(job.settings, "scheduler") or default or _scheduler(config)
    real = next((measured[name] for name in TO_REAL if name in measured), None)
    enough = real is not None and real.caveat is None
    provenance = _content(folder, PROVENANCE, {})

    return Row(
        job=job,
        label=" ".join(setting_words(ways)) or scheduler,
        method=method or scheduler,
        scheduler=scheduler,
        steps=int(config.get("num_steps") or 0),
        folder=folder,
        to_converged=_distance(next((measured[name] for name in TO_CONVERGED if name in measured), None)),
        to_real=_distance(real if enough else None),
        real_caveat=None if real is None else real.caveat,
        rough=_distance(real if not enough else None),
        evaluations=job.metrics.get(COLUMNS["evaluations/image"]),
        passes=job.metrics.get(COLUMNS["passes/image"]),
        seconds=job.metrics.get(COLUMNS["seconds/image"]),
        guidance=str(provenance.get(GUIDANCE, "")),
        calibrated_with=str(provenance.get(GUIDANCE_OF_STEPS, "")),
    )


def _ranked(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows by their distance: that to the converged solution where any has it, else that to real images."""
    paired = any(row.to_converged is not None for row in rows)
    rows = [replace(row, distance=row.to_converged if paired else row.to_real) for row in rows]

    measured = [row for row in rows if row.distance is not None]
    measured.sort(key=lambda row: row.distance.value if row.distance else 0.0)
    rest = [row for row in rows if row.distance is None]
    cost = np.array([row.passes or 0.0 for row in measured])
    front = set(pareto_front(cost, np.array([row.distance.value for row in measured if row.distance])).tolist())
    several = len(measured) > 1
    marked = [replace(row, best=several and i == 0, front=several and i in front) for i, row in enumerate(measured)]
    return (*marked, *rest)


def _distance(measurement: Measurement | None) -> Distance | None:
    """A measurement as a distance, whose interval does not reach below 0."""
    if measurement is None:
        return None
    ends = measurement.interval and (max(0.0, measurement.interval[0]), measurement.interval[1])
    return Distance(measurement.name, measurement.value, ends)


def _measured(folder: Path | None) -> dict[str, Measurement]:
    """What was measured of a run; {} where its files are gone or older."""
    with contextlib.suppress(TypeError):
        found = _content(folder, QUALITY, [])
        return {m["name"]: Measurement(**{**m, "interval": m["interval"] and tuple(m["interval"])}) for m in found}
    return {}


def _content(folder: Path | None, name: str, otherwise: Any) -> Any:
    """What a JSON file of a run says; `otherwise` where there is none."""
    with contextlib.suppress(OSError, ValueError):
        return otherwise if folder is None else json.loads((folder / name).read_text(encoding="utf-8"))
    return otherwise


def _recorded(job: Job) -> dict[str, Measurement]:
    """The distances to converged solutions among a job's numbers, where its files are gone."""
    found = {name: job.metrics.get(f"quality/{name}") for name in TO_CONVERGED}
    return {name: Measurement(name, value, 0) for name, value in found.items() if value is not None}


def _config(folder: Path | None) -> Any:
    with contextlib.suppress(Exception):
        return OmegaConf.load(folder / "config.yaml") if folder is not None else {}
    return {}


def _scheduler(config: Any) -> str:
    """The scheduler of a run's configuration as its option is called, dpm_solver for DPMSolverScheduler; or ""."""
    target = str((config.get("scheduler") or {}).get("_target_", "")).rpartition(".")[2]
    name = target.removesuffix("Scheduler").removesuffix("_scheduler")
    return re.sub(r"(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _group(setting: str) -> str:
    return setting.lstrip("+~").partition("=")[0].partition(".")[0].partition("@")[0]


def _value(settings: Sequence[str], key: str) -> str:
    return next((s.partition("=")[2] for s in reversed(settings) if s.startswith(f"{key}=")), "")
