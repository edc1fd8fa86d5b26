"""Figures of matplotlib, without pyplot: logarithmic axes, and small PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..io.files import atomic_path


def new_figure(size: tuple[float, float]) -> Any:
    """A figure without a window; `size` in inches."""
    # without pyplot: no window system, no global state, half the import time
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def logarithmic(axes: Any, x: str, y: str) -> None:
    """Logarithmic axes with readable ticks; without any numbers, a sentence."""
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


def save_figure(figure: Any, path: Path) -> None:
    """Write a PNG file with a palette: a third of the size of one with all colours."""
    from PIL import Image

    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    with atomic_path(path) as temporary:
        picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(temporary, optimize=True)
