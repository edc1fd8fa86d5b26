"""How close to the model's converged images one comes with few passes: what the benchmark measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..benchmark.axes import new_figure, save_figure
from ..benchmark.curves import Curve, Point, draw_curves
from ..diffusion.checks import check_choice, check_count
from ..program import PACKAGE
from ..runs.checks import as_user_error

SHIPPED = PACKAGE / "assets" / "curve.json"  # made by `python -m tools`
MOST_PASSES = 100


@dataclass(frozen=True)
class Measurement:
    """A cell of the benchmark.

    Attributes:
        domain: What was drawn.
        scheduler: Option of `scheduler`.
        method: Its name and that of its grid, for people.
        steps: Number of steps.
        passes: Through the network, for an image.
        distance: Perceptual distance to the converged images, mean.
        sd: Its standard deviation over the blocks of the benchmark.
    """

    domain: str
    scheduler: str
    method: str
    steps: int
    passes: int
    distance: float
    sd: float


@cache
def measured() -> tuple[Measurement, ...]:
    """All cells."""
    return tuple(Measurement(**row) for row in _content()["measured"])


def images() -> int:
    """The number of images of each cell."""
    return int(_content()["images"])


def domains() -> list[str]:
    """The domains that were measured."""
    return list(dict.fromkeys(row.domain for row in measured()))


def affordable(domain: Any, passes: Any) -> list[Measurement]:
    """Of each method the closest cell within a budget of passes, the closest first.

    Raises:
        UserError: for a domain that was not measured, or a budget out of bounds.
    """
    with as_user_error():
        check_choice("domain", domain, domains())
        budget = check_count("passes", passes, 1, MOST_PASSES)
    best: dict[str, Measurement] = {}
    for row in measured():
        if row.domain == domain and row.passes <= budget:
            best[row.method] = min(best.get(row.method, row), row, key=lambda row: row.distance)
    return sorted(best.values(), key=lambda row: row.distance)


def plot(path: Path, domain: str, passes: int) -> None:
    """Write the curves of a domain as a PNG file, with a line at a budget of passes."""
    figure = new_figure((7, 4))
    axes = figure.subplots()
    draw_curves(axes, curves(domain), "passes through the network, for an image", "distance to the converged images")
    axes.axvline(passes, color="0.4", linestyle="--")
    axes.set_title(domain)
    axes.legend()
    save_figure(figure, path)


def curves(domain: str) -> list[Curve]:
    """A curve for each method that was measured in a domain, with one standard deviation on both sides."""
    cells: dict[tuple[str, str], list[Measurement]] = {}
    for row in sorted(measured(), key=lambda row: row.passes):
        if row.domain == domain:
            cells.setdefault((row.scheduler, row.method), []).append(row)
    return [Curve(*names, tuple(_point(row) for row in rows)) for names, rows in cells.items()]


def _point(row: Measurement) -> Point:
    return Point(row.steps, row.passes, row.distance, row.distance - row.sd, row.distance + row.sd)


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return content
