"""The benchmark's plots: quality against network evaluations or passes, and its Pareto front with seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..io.files import atomic_path

if TYPE_CHECKING:
    from .rows import Row

TITLES = {
    "fd_encoder": "fd_encoder to real images",
    "fd_vicreg": "fd_vicreg to real images",
    "fd_converged": "fd_encoder to the converged solution",
    "rmse": "RMSE to the converged solution",
    "perceptual": "perceptual distance to the converged solution",
}
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def save_quality_plot(path: Path, rows: Sequence[Row], title: str) -> None:
    """Plot distances against network evaluations per image; error bars are standard deviations over the blocks.

    Where evaluations take different numbers of passes through the network, they are plotted against passes.

    Args:
        path: PNG file.
        rows: The rows of one domain.
        title: Heading.
    """
    figure = _figure((15, 8))
    *panels, spare = figure.subplots(2, 3).ravel()
    spare.set_axis_off()
    cost, unit = _cost(rows)

    for axes, (metric, name) in zip(panels, TITLES.items(), strict=True):
        for method, points in _methods(rows).items():
            shown = [row for row in points if row.mean[metric] is not None]
            if shown:
                axes.errorbar(
                    [row.mean[cost] for row in shown],
                    [row.mean[metric] for row in shown],
                    yerr=[row.spread[metric] or 0.0 for row in shown],
                    label=method,
                    capsize=2,
                    markersize=4,
                    linewidth=1,
                    **_look(method, rows),
                )

        _finish(axes, f"{unit} per image", name)

    _legend(figure, panels[0], title)
    _save(figure, path)


def save_pareto_plot(path: Path, rows: Sequence[Row], title: str) -> None:
    """Plot quality against seconds per image, with the Pareto front: the cells that no cell beats in both.

    Arguments as for `save_quality_plot`.
    """
    figure = _figure((11, 4.6))
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

        # the front is of all methods together
        cost, quality = np.array([[row.mean["seconds"], row.mean[metric]] for row in shown]).reshape(-1, 2).T
        front = pareto_front(cost, quality)
        axes.plot(cost[front], quality[front], color="0.4", linewidth=1, zorder=0, label="Pareto front")
        _finish(axes, "seconds per image", TITLES[metric])

    _legend(figure, panels[0], title)
    _save(figure, path)


def pareto_front(cost: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Indices of the points that no point beats in both cost and distance, (n,) each, by increasing cost."""
    front: list[int] = []
    for i in np.lexsort((distance, cost)):
        if not front or distance[i] < distance[front[-1]]:
            front.append(int(i))
    return np.array(front, int)


def _cost(rows: Sequence[Row]) -> tuple[str, str]:
    """The metric that tells the costs of all rows apart, and its unit."""
    means = [(row.mean["passes"], row.mean["evaluations"]) for row in rows]
    ratios = {passes / evaluations for passes, evaluations in means if passes and evaluations}
    known = all(passes is not None for passes, _ in means)
    return ("passes", "network passes") if known and len(ratios) > 1 else ("evaluations", "model evaluations")


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


def _figure(size: tuple[float, float]) -> Any:
    # without pyplot: no window system, no global state, half the import time
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _finish(axes: Any, x: str, y: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if not axes.dataLim.y1 > 0:  # no numbers at all: stochastic schedulers have no converged solution
        axes.set_axis_off()
        axes.set_title(f"{y}: no numbers", fontsize="medium")
        return

    axes.set_xscale("log")
    axes.set_yscale("log", nonpositive="clip")

    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        # more ticks within a decade, the fewer decades there are
        subs = (1, 1.5, 2, 3, 5, 7) if high < 30 * low else (1, 3) if high < 3000 * low else (1,)
        axis.set_major_locator(LogLocator(subs=subs, numticks=20))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())

    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3, which="both")


def _legend(figure: Any, axes: Any, title: str) -> None:
    figure.suptitle(title)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize="small")


def _save(figure: Any, path: Path) -> None:
    """Write a PNG file with a palette: a third of the size of one with all colours."""
    from PIL import Image

    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    with atomic_path(path) as temporary:
        picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(temporary, optimize=True)
