"""The figure of distances to real images against passes, made from the files in `docs/real_images`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptive_diffusion.benchmark.axes import logarithmic, new_figure, save_figure
from tools.benchmark_tables import DOMAINS
from tools.real_tables import CONSTANT, DISTANCES, INTERVAL, STORED, by_method, read_rows, real_images

Look = tuple[str, dict[str, Any]]  # name in the legend, look of its line

LOOKS: dict[tuple[str, str], Look] = {  # by sampler and guidance
    ("ddim", CONSTANT): ("DDIM", {"color": "C0"}),
    ("dpm_solver", CONSTANT): ("DPM-Solver++", {"color": "C2"}),
    ("unipc", CONSTANT): ("UniPC", {"color": "C4"}),
    ("dpm_solver", INTERVAL): (
        "DPM-Solver++, the guidance of tuned",
        {"color": "C2", "marker": "D", "linestyle": "--"},
    ),
    ("unipc", INTERVAL): ("UniPC, the guidance of tuned", {"color": "C4", "marker": "D", "linestyle": "--"}),
    ("adaptive", CONSTANT): ("adaptive", {"color": "C3", "markerfacecolor": "white"}),
    (STORED, INTERVAL): (
        "tuned, first evaluation stored",
        {"color": "C3", "linewidth": 2.4, "markersize": 5, "zorder": 5},
    ),
}


def save_real_plot(summary: Path, path: Path) -> None:
    """A row of panels for each encoder, a panel for each domain; every point is of the same number of images.

    Args:
        summary: `summary.csv`, which `real.csv` lies beside.
        path: PNG file.
    """
    best, real = by_method(read_rows(summary)), real_images(summary)
    figure = new_figure((12, 5.6))
    panels = figure.subplots(len(DISTANCES), len(DOMAINS), sharex=True)
    for metric, line in zip(DISTANCES, panels, strict=True):
        for domain, axes in zip(DOMAINS, line, strict=True):
            for kind, (name, look) in LOOKS.items():
                points = sorted(
                    (float(row["passes_mean"]), float(row[f"{metric}_all"]))
                    for (where, *method, _), row in best.items()
                    if (where, *method) == (domain, *kind)
                )
                if points:
                    axes.plot(
                        *zip(*points, strict=True),
                        **{"marker": "o", "markersize": 3.5, "linewidth": 1.2, **look},
                        label=name,
                    )
            axes.axhline(float(real[domain][f"{metric}_mean"]), color="0.5", linestyle=":", label="as many real images")
            last, first = metric == DISTANCES[-1], domain == DOMAINS[0]
            logarithmic(axes, "passes per image" if last else "", metric if first else "")
            if metric == DISTANCES[0]:
                axes.set_title(domain)
    handles, names = max((axes.get_legend_handles_labels() for axes in panels.flat), key=lambda found: len(found[0]))
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    save_figure(figure, path)
