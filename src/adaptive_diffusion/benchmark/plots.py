"""The benchmark's plots: quality of the leading methods against passes, and its Pareto front with seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from .axes import logarithmic, new_figure, save_figure
from .curves import Curve, Point, draw_curves

if TYPE_CHECKING:
    from .rows import Row

TITLES = {
    "fd_encoder": "fd_encoder to real images",
    "fd_vicreg": "fd_vicreg to real images",
    "rmse": "RMSE to the converged solution",
    "perceptual": "perceptual distance to the converged solution",
}
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LEADING = ("perceptual", "fd_encoder", "fd_vicreg")  # of the leading methods, the first two that were measured


def save_quality_plot(path: Path, rows: Sequence[Row], title: str) -> None:
    """Plot the leading methods, at most four, against passes; error bars are standard deviations over the blocks.

    Shown are the perceptual distance to the converged solution and `fd_encoder`, or where nothing was solved for,
    `fd_encoder` and `fd_vicreg`.

    Args:
        path: PNG file.
        rows: The rows of one domain.
        title: Heading.
    """
    figure = new_figure((11, 5.4))
    passes = all(row.mean["passes"] is not None for row in rows)
    cost, unit = ("passes", "network passes") if passes else ("evaluations", "model evaluations")

    measured = [metric for metric in LEADING if any(row.mean[metric] is not None for row in rows)][:2] or LEADING[:1]
    for axes, metric in zip(figure.subplots(1, len(measured), squeeze=False)[0], measured, strict=True):
        draw_curves(axes, _curves(rows, metric, cost), f"{unit} per image", TITLES[metric])
        handles, names = axes.get_legend_handles_labels()
        if names:  # below, since a variant may take several lines
            wrapped = [fill(name, 70) for name in names]
            axes.legend(handles[::-1], wrapped[::-1], fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14))

    figure.suptitle(title)
    save_figure(figure, path)


def _curves(rows: Sequence[Row], metric: str, cost: str) -> list[Curve]:
    """The methods that have a number of a metric."""
    found = []
    for method, points in _methods([row for row in rows if row.mean[metric] is not None]).items():
        numbers = [(row.cell.num_steps, row.mean[cost], row.mean[metric], row.spread[metric] or 0.0) for row in points]
        drawn = tuple(Point(n, x or 0.0, y or 0.0, (y or 0.0) - sd, (y or 0.0) + sd) for n, x, y, sd in numbers)
        found.append(Curve(points[0].cell.scheduler, method, drawn))
    return found


def save_pareto_plot(path: Path, rows: Sequence[Row], title: str) -> None:
    """Plot quality against seconds per image, with the Pareto front: the cells that no cell beats in both.

    Arguments as for `save_quality_plot`.
    """
    figure = new_figure((11, 4.6))
    panels = figure.subplots(1, 2)

    for axes, metric in zip(panels, ("fd_encoder", "rmse"), strict=True):
        shown = [row for row in rows if row.mean[metric] is not None]
        for method, points in _methods(shown).items():
            look = _look(method, rows)
            axes.plot(
                [row.mean["seconds"] for row in points],
                [row.mean[metric] for row in points],
                label=method,
                **{**look, "linestyle": ""},
            )
            for row in points:
                axes.annotate(
                    str(row.cell.num_steps),
                    (row.mean["seconds"], row.mean[metric]),
                    textcoords="offset points",
                    xytext=(4, 3),
                    fontsize="x-small",
                    color=look["color"],
                )

        # the front is of all methods together
        cost, quality = np.array([[row.mean["seconds"], row.mean[metric]] for row in shown]).reshape(-1, 2).T
        front = pareto_front(cost, quality)
        axes.plot(cost[front], quality[front], color="0.4", linewidth=1, zorder=0, label="Pareto front")
        logarithmic(axes, "seconds per image", TITLES[metric])

    _legend(figure, panels[0], title)
    save_figure(figure, path)


def pareto_front(cost: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Indices of the points that no point beats in both cost and distance, (n,) each, by increasing cost."""
    front: list[int] = []
    for i in np.lexsort((distance, cost)):
        if not front or distance[i] < distance[front[-1]]:
            front.append(int(i))
    return np.array(front, int)


def _methods(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by method, sorted by steps."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.cell.method, row.cell.num_steps)):
        found.setdefault(row.cell.method, []).append(row)
    return found


def _look(method: str, rows: Sequence[Row]) -> dict[str, Any]:
    """A colour for each scheduler with its variant, a line and a marker for each grid."""
    cells = {row.cell.method: row.cell for row in rows}
    kinds = sorted({(c.scheduler, c.variant) for c in cells.values()})
    grids = sorted({c.grid for c in cells.values()})
    cell = cells[method]
    grid = grids.index(cell.grid)
    colour = f"C{kinds.index((cell.scheduler, cell.variant)) % 10}"
    return {"color": colour, "linestyle": LINES[grid % len(LINES)], "marker": MARKERS[grid % len(MARKERS)]}


def _legend(figure: Any, axes: Any, title: str) -> None:
    figure.suptitle(title)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
