"""The pictures of a sweep: a labelled sheet of its images, and a plot of distances against network passes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..benchmark.curves import Curve, Point, save_curves
from ..io import figures
from ..io.counted import count
from .job import explain
from .sample_files import SHEET
from .sweep_rows import TO_CONVERGED, Group

log = logging.getLogger(__name__)

MOST_ROWS = 60  # of a sheet
CELL = 64  # pixels of an image of a sheet


def draw_all(folder: Path, groups: Sequence[Group]) -> list[str]:
    """Draw `sheet.png` and `quality_passes.png`; the names of those that there are."""
    drawn = []
    for name, draw in (("sheet.png", draw_sheet), ("quality_passes.png", draw_plot)):
        try:
            drawn += [name] if draw(folder / name, groups) else []
        except Exception as error:  # the numbers are worth more than a picture that fails
            log.warning("%s could not be drawn: %s", name, explain(error)[0])
    return drawn


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
