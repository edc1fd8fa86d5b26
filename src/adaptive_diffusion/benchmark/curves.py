"""The plot that a person reads: quality against cost, with at most four lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .axes import logarithmic, new_figure, save_figure

MOST = 4  # lines
BOLD = "adaptive"  # the line in front
COLOURS = {"ddim": "C0", "dpm_solver": "C2", "unipc": "C4", BOLD: "C3"}  # of schedulers that are always drawn alike
CHARACTERS = 45  # that have room side by side below a plot
SPARE = ("C1", "C5", "C6", "C9")


@dataclass(frozen=True)
class Point:
    """What was measured at one number of steps.

    Attributes:
        steps: Steps that were asked for.
        cost: Network passes, or evaluations, per image; > 0.
        value: A distance, > 0.
        low, high: Ends of its interval.
    """

    steps: int
    cost: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A sampling method at several costs.

    Attributes:
        scheduler: Name of the scheduler.
        name: Name of the method, for the legend.
        points: By increasing cost.
    """

    scheduler: str
    name: str
    points: tuple[Point, ...]


def leading(curves: Sequence[Curve]) -> list[Curve]:
    """At most four curves: the best of each scheduler, the known schedulers first; of a single one, its best four."""
    by_scheduler: dict[str, list[Curve]] = {}
    for curve in curves:
        by_scheduler.setdefault(curve.scheduler, []).append(curve)
    ranked = {name: sorted(some, key=lambda curve: _rank(curve, some)) for name, some in by_scheduler.items()}
    if len(ranked) == 1:
        return next(iter(ranked.values()))[:MOST]
    best = {name: some[0] for name, some in ranked.items()}

    known = [*reversed(COLOURS)]  # the bold one first
    order = [scheduler for scheduler in known if scheduler in best]
    order += [scheduler for scheduler in best if scheduler not in known]
    return [best[scheduler] for scheduler in order[:MOST]]


def draw_curves(axes: Any, curves: Sequence[Curve], x: str, y: str) -> None:
    """Draw the leading curves with their intervals and steps, the rest as pale points, on logarithmic axes."""
    shown = leading(curves)
    spare = iter(SPARE)
    several = len({curve.scheduler for curve in shown}) > 1

    rest = [point for curve in curves if curve not in shown for point in curve.points]
    if rest:
        axes.plot([p.cost for p in rest], [p.value for p in rest], "o", color="0.8", markersize=3, label="others")

    for curve in reversed(shown):  # the bold one last, so that it is in front
        bold = curve.scheduler == BOLD and several
        colour = COLOURS.get(curve.scheduler) if several else None
        axes.errorbar(
            [p.cost for p in curve.points],
            [p.value for p in curve.points],
            yerr=[[p.value - max(p.low, 0) for p in curve.points], [p.high - p.value for p in curve.points]],
            label=curve.name,
            color=colour or next(spare),
            linewidth=2.8 if bold else 1.2,
            marker="o",
            markersize=6 if bold else 4,
            elinewidth=1,
            capsize=2,
            zorder=4 if bold else 3,
        )
    logarithmic(axes, x, y)

    # The costs that were measured are better ticks than round numbers; those without room for a name are left out.
    costs = sorted({p.cost for curve in shown for p in curve.points})
    named: dict[float, str] = {}
    for cost in costs:
        name, (before, other) = f"{cost:.4g}", next(reversed(named.items()), (0.0, ""))
        characters = (len(other) + len(name) + 1) / 2  # from the middle of a name to that of the next
        if not named or cost > before * (costs[-1] / costs[0]) ** (characters / CHARACTERS):
            named[cost] = name
    if len(named) > 1:
        axes.set_xticks(list(named), list(named.values()))


def save_curves(path: Path, panels: Mapping[str, Sequence[Curve]], x: str, y: Mapping[str, str], title: str) -> None:
    """Plot one panel for each problem; see `draw_curves`.

    Args:
        path: PNG file.
        panels: Heading of a panel -> its curves; at least one.
        x: What the axes of cost show.
        y: Heading of a panel -> what its other axis shows.
        title: Heading of the figure.
    """
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = new_figure((5.2 * columns, 4.0 * rows + 0.4))
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())

    for axes, (name, curves) in zip(grid, panels.items(), strict=False):
        draw_curves(axes, curves, x, y[name])
        axes.set_title(name, fontsize="medium")
        handles, names = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], names[::-1], fontsize="small")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()

    figure.suptitle(title)
    save_figure(figure, path)


def _rank(curve: Curve, others: Sequence[Curve]) -> tuple[bool, float]:
    """Smaller is better: the mean logarithm of its distance over the least one at as many steps.

    A curve with less than half the points of the longest comes last: it may have been measured where it is good.
    """
    least: dict[int, float] = {}
    for point in (point for other in others for point in other.points):
        least[point.steps] = min(_log(point), least.get(point.steps, math.inf))
    short = 2 * len(curve.points) < max(len(other.points) for other in others)
    return short, sum(_log(p) - least[p.steps] for p in curve.points) / len(curve.points)


def _log(point: Point) -> float:
    return math.log(max(point.value, 1e-12))
