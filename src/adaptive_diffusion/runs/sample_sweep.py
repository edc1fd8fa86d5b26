"""What a sweep of sample.py makes of its jobs: a table with the best first, a labelled sheet, a plot."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig

from ..benchmark.curves import Curve, Point, save_curves
from ..io import figures
from ..io.counted import count
from ..io.files import write_text
from ..io.markdown import literal
from ..io.markdown import table as markdown_table
from ..tracking.jobs import Job, failures
from ..tracking.tracker import NoTracker
from .job import explain, say
from .sample_files import SHEET
from .setting_types import target_of
from .sweep_cost import cost
from .sweep_rows import TO_CONVERGED, Group, Row, groups_of

if TYPE_CHECKING:
    from .benchmark import BenchmarkReport

log = logging.getLogger(__name__)

HEADER = ("", "job", "to converged", "to real images", "evaluations/image", "passes/image", "seconds/image")
MOST_ROWS = 60  # of a sheet
CELL = 64  # pixels of an image of a sheet
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
        try:
            kept = bool(config.skip_finished) and target_of(config.tracking) is not NoTracker
            text = cost(config, "job", converged=converged, kept=kept)
        except Exception as error:
            log.debug("no estimate of the cost: %s", error)
            return
        say(text + (" metrics.converged=false does without converged solutions." if converged else ""))

    def end(self, config: DictConfig, jobs: Sequence[Job]) -> Sequence[Path]:
        """Write and print the results; the files, or () where no job has any numbers."""
        if config.get("benchmark") is not None:
            return _benchmark().end(config, jobs)
        groups = groups_of(jobs, config.hydra.runtime.choices.get("scheduler", ""))
        if not groups:
            return ()

        folder, notes = Path(config.hydra.sweep.dir), notes_of(groups)
        write_text(folder / "results.csv", _csv(groups, jobs))
        drawn = [name for name, draw in PICTURES.items() if _attempt(draw, folder / name, groups)]
        write_text(folder / "results.md", _markdown(groups, jobs, notes, drawn))
        made = [folder / name for name in ("results.md", "results.csv", *drawn)]

        say("\n" + _text(groups))
        for note in notes:
            say(note)
        say("\n".join(f"{'saved' if file is made[0] else '':<11}{file}" for file in made))
        return made


def _benchmark() -> BenchmarkReport:
    from .benchmark import BenchmarkReport

    return BenchmarkReport()


def _attempt(draw: Callable[[Path, Sequence[Group]], bool], path: Path, groups: Sequence[Group]) -> bool:
    """Draw a picture; whether there is one. The numbers are worth more than a picture that fails."""
    try:
        return draw(path, groups)
    except Exception as error:
        log.warning("%s could not be drawn: %s", path.name, explain(error)[0])
        return False


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
    if needed := max((row.real_needs for row in rows), default=0):
        notes.append(f"distances to real images need at least {needed} images a job: num_samples={needed}")
    if any(row.to_converged is None for row in rows) and any(row.to_converged is not None for row in rows):
        notes.append(
            "schedulers that add noise have no converged solution: compare them by the distance to real images"
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


def _csv(groups: Sequence[Group], jobs: Sequence[Job]) -> str:
    """All jobs in their order, with what varies, every number, and the reason where there is none."""
    rows = {row.job.number: row for group in groups for row in group.rows}
    settings = {job.number: dict(s.lstrip("+~").partition("=")[::2] for s in job.settings) for job in jobs}
    keys = list(dict.fromkeys(key for given in settings.values() for key in given))
    metrics = sorted({name for job in jobs for name in job.metrics})
    ends = ("to_converged", "to_converged_low", "to_converged_high", "to_real", "to_real_low", "to_real_high")

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["job", "status", *keys, *ends, *metrics, "folder", "reason"])
    for job in jobs:
        row = rows.get(job.number)
        measured = [row.to_converged, row.to_real] if row is not None else [None, None]
        distances = [n for m in measured for n in ((m.value, *(m.interval or ("", ""))) if m else ("", "", ""))]
        given = [settings[job.number].get(key, "") for key in keys]
        numbers = [job.metrics.get(name, "") for name in metrics]
        writer.writerow([job.number, job.status, *given, *distances, *numbers, job.folder, job.reason])
    return text.getvalue()


def draw_sheet(path: Path, groups: Sequence[Group]) -> bool:
    """One row of images for each job, and one of the converged solutions for each group; whether there are any."""
    rows: list[tuple[str, list[np.ndarray], bool]] = []
    for group in groups:
        jobs = [(row, images) for row in group.rows if (images := _images(row.folder, "pictures"))]
        goal = next((images for row, _ in jobs if (images := _images(row.folder, "converged"))), [])
        if goal:
            rows.append((f"{group.name}\nconverged".strip(), goal, False))
        for row, images in jobs:
            distance = row.distance
            value = "" if distance is None else f"\ndistance {distance.value:.3g}"
            passes = "" if row.passes is None else f"\n{count(float(f'{row.passes:.4g}'), 'pass')}"
            rows.append((f"{group.name}\n{row.label}{passes}{value}".strip(), images, row.best))

    if not rows:
        return False

    rows = rows[:MOST_ROWS]
    columns = max(len(images) for _, images, _ in rows)
    blank = np.full((CELL, CELL, 3), 255, np.uint8)
    cells = [image for _, images, _ in rows for image in [*images, *[blank] * (columns - len(images))]]
    sheet = figures.grid(np.stack(cells), columns=columns, cell=CELL)
    best = [i for i, (_, _, marked) in enumerate(rows) if marked]
    names = [f"noise {i}" for i in range(columns)]
    figures.save_image(path, figures.labelled(sheet, [label for label, _, _ in rows], names, best))
    return True


def _images(folder: Path | None, name: str) -> list[np.ndarray]:
    """The first images in a folder of a run, (CELL, CELL, 3) uint8."""
    from PIL import Image

    files = sorted((folder / name).glob("*.png"))[:SHEET] if folder is not None else []
    found = []
    for file in files:
        try:
            image = Image.open(file).convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:  # a blank in its place keeps the others in their columns
            log.warning("%s cannot be read (%s)", file, error)
            image = Image.new("RGB", (CELL, CELL), "white")
        way = Image.Resampling.NEAREST if max(image.size) <= CELL else Image.Resampling.LANCZOS
        found.append(np.array(image.resize((CELL, CELL), way)))
    return found


def draw_plot(path: Path, groups: Sequence[Group]) -> bool:
    """Distances against network passes, a panel for each group; whether there are any."""
    panels: dict[str, list[Curve]] = {}
    labels: dict[str, str] = {}
    for group in groups:
        methods: dict[tuple[str, str], list[Point]] = {}
        for row in group.rows:
            if row.distance is None or not row.passes:
                continue
            low, high = row.distance.interval or (row.distance.value,) * 2
            point = Point(row.steps, row.passes, row.distance.value, low, high)
            methods.setdefault((row.scheduler, row.method), []).append(point)
            towards = "the converged solution" if row.distance.name in TO_CONVERGED else "real images"
            labels[group.name] = f"{row.distance.name} to {towards}"
        if methods:
            panels[group.name] = [
                Curve(scheduler, method, tuple(sorted(points, key=lambda point: point.cost)))
                for (scheduler, method), points in methods.items()
            ]
    if not panels:
        return False

    save_curves(path, panels, "network passes per image", labels, "")
    return True


PICTURES = {"sheet.png": draw_sheet, "quality_passes.png": draw_plot}
