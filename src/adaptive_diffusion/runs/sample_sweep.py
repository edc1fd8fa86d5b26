"""What a sweep of sample.py makes of its jobs: a table with the best first, notes on it, and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from ..io.counted import count
from ..io.files import write_csv, write_text
from ..io.markdown import literal
from ..io.markdown import table as markdown_table
from ..tracking.jobs import Job, failures, telling
from ..tracking.tracker import NoTracker
from .output import rows_text, say
from .setting_types import target_of
from .sweep_cost import announce
from .sweep_pictures import MOST_ROWS, draw_all
from .sweep_rows import Distance, Group, Row, groups_of

if TYPE_CHECKING:
    from .benchmark import BenchmarkReport

HEADER = ("", "job", "to converged", "to real images", "evaluations/image", "passes/image", "seconds/image")
WITHOUT = "metrics.converged=false does without converged solutions."
LONGEST_TABLE = 60  # rows that are printed; results.md has all


class SampleReport:
    """Says what a sweep costs before it starts, and writes its results when it ends; those of a benchmark are its own.

    `results.csv` and `results.md` hold all jobs, `sheet.png` their first images, `quality_passes.png` distances against
    network passes.
    """

    def begin(self, config: DictConfig) -> None:
        """Print the number of jobs, evaluations and minutes; what cannot be used is refused by the jobs."""
        if config.get("benchmark") is not None:
            _benchmark().begin(config)
            return
        converged = bool(config.metrics.get("converged"))
        kept = bool(config.skip_finished) and target_of(config.tracking) is not NoTracker
        announce(config, "job", WITHOUT if converged else "", converged=converged, kept=kept)

    def end(self, config: DictConfig, jobs: Sequence[Job]) -> Sequence[Path]:
        """Write and print the results; the files, or () where no job has any numbers."""
        if config.get("benchmark") is not None:
            return _benchmark().end(config, jobs)
        groups = groups_of(jobs, config.hydra.runtime.choices.get("scheduler", ""))
        if not groups:
            return ()

        folder, notes = Path(config.hydra.sweep.dir), notes_of(groups)
        write_csv(folder / "results.csv", _csv(groups, jobs))
        drawn = draw_all(folder, groups)
        write_text(folder / "results.md", _markdown(groups, jobs, notes, drawn))
        made = [folder / name for name in ("results.md", "results.csv", *drawn)]

        say("\n" + _text(groups))
        for note in notes:
            say(note)
        say(rows_text({"saved": "\n".join(map(str, made))}))
        return made


def _benchmark() -> BenchmarkReport:
    from .benchmark import BenchmarkReport

    return BenchmarkReport()


def notes_of(groups: Sequence[Group]) -> list[str]:
    """What has to be known of the numbers, a line each."""
    rows = [row for group in groups for row in group.rows]
    notes = []
    if any(row.best for row in rows):
        notes.append(
            "best: the smallest distance; front: no job has fewer passes and a smaller distance; [...]: 95 % intervals"
        )
    if any(row.rough for row in rows):
        notes.append(
            "~: of too few images, and much too large by that; compare it only with another ~ below the same heading"
        )
    caveats = dict.fromkeys(row.real_caveat for row in rows if row.real_caveat)
    notes += [f"distances to real images: {caveat}" for caveat in caveats]
    if any(row.to_converged is None for row in rows) and any(row.to_converged is not None for row in rows):
        notes.append(
            "jobs without a distance to the converged solution, as where a scheduler adds noise or images do not begin "
            "at plain noise, come after those with one; compare them by the distance to real images"
        )
    if borrowed := [f"#{row.job.number} ({row.calibrated_with})" for row in rows if row.calibrated_with]:
        notes.append(f"steps that were calibrated with another guidance than the job's: {', '.join(borrowed)}")
    if skipped := sum(row.job.status == "SKIPPED" for row in rows):
        notes.append(f"{count(skipped, 'job')} had finished before, and {'is' if skipped == 1 else 'are'} not repeated")
    if len(rows) > MOST_ROWS:
        notes.append(f"sheet.png shows the first {MOST_ROWS} rows")
    return notes


def cells_of(row: Row) -> list[str]:
    """The cells of a row of the table, in the order of `HEADER`; "" for what is not known."""
    mark = "best" if row.best else "front" if row.front else ""
    numbers = [f"{value:.4g}" if value is not None else "" for value in (row.evaluations, row.passes, row.seconds)]
    real = f"~{row.rough}" if row.rough else str(row.to_real or "")
    return [mark, f"#{row.job.number} {row.label}", str(row.to_converged or ""), real, *numbers]


def _table(rows: Sequence[Row]) -> list[list[str]]:
    """The headings and the cells of the rows, without columns that are empty."""
    cells = [list(HEADER), *map(cells_of, rows)]
    kept = [i for i in range(len(HEADER)) if any(row[i] for row in cells[1:])]
    return [[row[i] for i in kept] for row in cells]


def _text(groups: Sequence[Group]) -> str:
    """The table in plain text, one for each group."""
    lines: list[str] = []
    room = max(1, LONGEST_TABLE // len(groups))
    for group in groups:
        cells = _table(group.rows[:room])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines += [group.name] if group.name else []
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        if (hidden := len(group.rows) - room) > 0:
            lines.append(f"{hidden} more in results.md")
        lines.append("")
    return "\n".join(lines).rstrip()


def _markdown(groups: Sequence[Group], jobs: Sequence[Job], notes: Sequence[str], pictures: Sequence[str]) -> str:
    lines = ["# Sweep", ""]
    for group in groups:
        lines += [f"## {literal(group.name)}", ""] if group.name else []
        header, *cells = [[literal(cell) for cell in row] for row in _table(group.rows)]
        lines += [*markdown_table(header, cells, "".join("l" if name in HEADER[:2] else "r" for name in header)), ""]
    lines += [f"{note}.  " for note in notes]
    if failed := failures(jobs):
        lines += ["", failed]
    lines += [line for name in pictures for line in ("", f"![{name}]({name})")]
    return "\n".join(lines) + "\n"


def _csv(groups: Sequence[Group], jobs: Sequence[Job]) -> list[list[object]]:
    """All jobs in their order, with what varies, every number, and the reason where there is none."""
    rows = {row.job.number: row for group in groups for row in group.rows}
    settings = {job.number: dict(s.lstrip("+~").partition("=")[::2] for s in telling(job.settings)) for job in jobs}
    keys = list(dict.fromkeys(key for given in settings.values() for key in given))
    metrics = sorted({name for job in jobs for name in job.metrics})
    ends = ("to_converged", "to_converged_low", "to_converged_high", "to_real", "to_real_low", "to_real_high")

    lines: list[list[object]] = [["job", "status", *keys, *ends, *metrics, "folder", "reason"]]
    for job in jobs:
        row = rows.get(job.number)
        distances = [*_ends(row.to_converged if row else None), *_ends(row.to_real if row else None)]
        given = [settings[job.number].get(key, "") for key in keys]
        numbers = [job.metrics.get(name, "") for name in metrics]
        lines.append([job.number, job.status, *given, *distances, *numbers, job.folder, job.reason])
    return lines


def _ends(distance: Distance | None) -> tuple[str, str, str]:
    """The value of a distance and the ends of its interval; "" for what is not known."""
    if distance is None:
        return "", "", ""
    low, high = distance.interval or ("", "")
    return str(distance.value), str(low), str(high)
