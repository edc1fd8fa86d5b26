"""How near to real images one comes with few passes: what was measured of the shipped model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..benchmark.axes import new_figure, save_figure
from ..benchmark.curves import Curve, Point, draw_curves
from ..diffusion.checks import check_choice, check_count
from ..io.files import ASSETS
from ..runs.checks import as_user_error

SHIPPED = ASSETS / "curve.json"  # made by `python -m tools`
MOST_PASSES = 100


@dataclass(frozen=True)
class Measurement:
    """Images that were measured.

    Attributes:
        domain: What was drawn, with labels by share.
        method: How, for people: without the steps, and whether the first prediction is stored.
        scheduler, grid, guidance: Options of these groups.
        stored: Whether the first prediction is stored, which saves an evaluation.
        steps: Number of steps.
        passes: Through the network, for an image.
        distance: Frechet distance of all images to real ones, by the project's encoder (`fd_encoder`).
        error: Its standard error, from blocks of seeds.
    """

    domain: str
    method: str
    scheduler: str
    grid: str
    guidance: str
    stored: bool
    steps: int
    passes: int
    distance: float
    error: float


@cache
def measured() -> tuple[Measurement, ...]:
    """All that was measured."""
    return tuple(Measurement(**row) for row in _content()["measured"])


def is_model(identity: str) -> bool:
    """Whether the model that was measured has this identity."""
    return identity.startswith(_content()["model"])


def images() -> int:
    """The number of images of each measurement."""
    return int(_content()["images"])


def between_real(domain: str) -> float:
    """The distance of as many real images of a domain to its other real images: nothing is nearer but by chance."""
    return float(_content()["real"][domain])


def domains() -> list[str]:
    """The domains that were measured."""
    return list(dict.fromkeys(row.domain for row in measured()))


def affordable(domain: Any, passes: Any) -> list[Measurement]:
    """Of each method what is nearest to real images within a budget of passes, the nearest first.

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


def fewest(domain: str) -> int:
    """The fewest passes that were measured in a domain."""
    return min(row.passes for row in measured() if row.domain == domain)


def plot_curves(path: Path, domain: str, passes: int) -> None:
    """Write the curves of a domain as a PNG file, with a line at a budget of passes, and one at real images."""
    figure = new_figure((7, 4))
    axes = figure.subplots()
    draw_curves(axes, curves(domain), "passes through the network, for an image", "distance to real images")
    axes.axvline(passes, color="0.4", linestyle="--")
    axes.axhline(between_real(domain), color="0.4", linestyle=":", label="real images among themselves")
    axes.set_title(domain)
    axes.legend(fontsize="small")
    save_figure(figure, path)


def curves(domain: str) -> list[Curve]:
    """A curve for each method that was measured in a domain, with one standard error on both sides."""
    rows: dict[tuple[str, str], list[Measurement]] = {}
    for row in sorted(measured(), key=lambda row: (row.passes, row.steps)):
        if row.domain == domain:
            rows.setdefault((row.scheduler, row.method), []).append(row)
    return [Curve(*names, tuple(_point(row) for row in some)) for names, some in rows.items()]


def _point(row: Measurement) -> Point:
    return Point(row.steps, row.passes, row.distance, row.distance - row.error, row.distance + row.error)


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return content
