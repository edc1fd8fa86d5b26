"""How close to the model's converged images one comes with few passes: what the benchmark measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..diffusion.checks import check_choice, check_count
from ..io.files import atomic_path
from ..program import PACKAGE
from ..runs.checks import refused

SHIPPED = PACKAGE / "assets" / "curve.json"  # made by `python -m tools`
MOST_PASSES = 100


@dataclass(frozen=True)
class Measurement:
    """A cell of the benchmark.

    Attributes:
        domain: That was drawn.
        method: Scheduler and grid.
        steps: Of it.
        passes: Through the network, for an image.
        distance: Perceptual distance to the converged images, mean.
        sd: Its standard deviation over the blocks of the benchmark.
    """

    domain: str
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
    """How many images a cell has."""
    return int(_content()["images"])


def domains() -> list[str]:
    """That were measured."""
    return list(dict.fromkeys(row.domain for row in measured()))


def affordable(domain: Any, passes: Any) -> list[Measurement]:
    """Of each method the closest cell within a budget of passes, the closest first.

    Raises:
        UserError: for a domain that was not measured, or a budget out of bounds.
    """
    with refused():
        check_choice("domain", domain, domains())
        budget = check_count("passes", passes, 1, MOST_PASSES)
    best: dict[str, Measurement] = {}
    for row in measured():
        if row.domain == domain and row.passes <= budget:
            best[row.method] = min(best.get(row.method, row), row, key=lambda row: row.distance)
    return sorted(best.values(), key=lambda row: row.distance)


def plot(path: Path, domain: str, passes: int) -> None:
    """Write the curves of a domain as a PNG file, with a line at a budget of passes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for method in _best_grids(domain):
        cells = sorted(
            (row for row in measured() if (row.domain, row.method) == (domain, method)), key=lambda r: r.passes
        )
        x, y, sd = ([getattr(row, name) for row in cells] for name in ("passes", "distance", "sd"))
        axes.errorbar(x, y, sd, marker="o", markersize=4, capsize=2, label=method, linewidth=1 + (method == "adaptive"))
    axes.axvline(passes, color="0.4", linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="passes through the network, for an image", title=domain)
    axes.set_ylabel("distance to the converged images")
    axes.set_xticks([10, 16, 20, 30, 40, 100], ["10", "16", "20", "30", "40", "100"], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _best_grids(domain: str) -> list[str]:
    """Of each scheduler the method that comes closest with the fewest passes that all took."""
    fewest = min(row.passes for row in measured())
    best: dict[str, Measurement] = {}
    for row in measured():
        if (row.domain, row.passes) == (domain, fewest):
            scheduler = row.method.partition(",")[0]
            best[scheduler] = min(best.get(scheduler, row), row, key=lambda row: row.distance)
    return [row.method for row in best.values()]


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return content
