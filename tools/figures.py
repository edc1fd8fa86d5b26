"""`python -m tools.figures`: calibrated steps, from the schedules that ship, and distances to real images."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adaptive_diffusion.calibration.calibrate import best_classical
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.grids.base import Spacing
from adaptive_diffusion.grids.calibrated import merged
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule
from adaptive_diffusion.grids.schedule_file import SHIPPED, load_schedules
from adaptive_diffusion.grids.spacings import KarrasGrid, LogSNRGrid, PowerGrid
from adaptive_diffusion.io.files import atomic_path
from adaptive_diffusion.leaving import run_program
from adaptive_diffusion.models.checkpoint import load_builtin_model
from tools.real_plot import save_real_plot
from tools.tables import PROJECT, REAL

GRIDS: dict[str, Spacing] = {
    "Karras": KarrasGrid(),
    "log-SNR": LogSNRGrid(),
    "quadratic": PowerGrid(2),
    "uniform": PowerGrid(1),
}
STEPS = 8  # of the grids that are shown


def main(argv: list[str]) -> None:
    """Write both figures."""
    argparse.ArgumentParser(prog="python -m tools.figures", description=__doc__).parse_args(argv)
    model = load_builtin_model()
    guidance = float(model.metadata["guidance_scale"])
    schedules = [s for s in merged(load_schedules(SHIPPED)) if s.guidance_scale == guidance]

    figure = Figure((7.2, 5.4), layout="constrained")
    where, error = figure.subplots(2, 1)
    draw_grids(where, schedules, NoiseSchedule(**model.metadata["noise_schedule"]))
    draw_errors(error, schedules)
    with atomic_path(PROJECT / "docs" / "explain" / "calibration.png") as path:
        figure.savefig(Path(path), dpi=110, format="png")

    save_real_plot(PROJECT / REAL, PROJECT / "docs" / "real_images" / "passes.png")


def draw_grids(axes: Axes, schedules: list[CalibratedSchedule], process: NoiseSchedule) -> None:
    """A row of dots for every grid: the noise levels at which the network is evaluated."""
    rows = {name: grid(process, STEPS) for name, grid in GRIDS.items()}
    rows |= {f"calibrated: {s.domain}": np.array(s.steps[STEPS].timesteps) for s in schedules}
    for row, (name, timesteps) in enumerate(rows.items()):
        colour = "tab:red" if name.startswith("calibrated") else "tab:grey"
        axes.plot(process.log_snr(timesteps), np.full(len(timesteps), row), "o-", color=colour, linewidth=0.5)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_xlabel("log-SNR: noise on the left, the image on the right")
    axes.set_title(f"Where the network is evaluated, {STEPS} steps")


def draw_errors(axes: Axes, schedules: list[CalibratedSchedule]) -> None:
    """RMSE to the reference by number of steps: the best classical grid, and the calibrated steps."""
    for number, schedule in enumerate(schedules):
        known = dict(sorted(schedule.steps.items()))
        classical = [best_classical(steps) for steps in known.values()]
        calibrated = [steps.score.mean for steps in known.values()]
        axes.plot([*known], classical, "--", color=f"C{number}")
        axes.plot([*known], calibrated, "o-", color=f"C{number}", label=schedule.domain, markersize=3)
    axes.plot([], [], "--", color="grey", label="best classical grid")
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="RMSE, held-out noises")
    axes.set_xticks([4, 6, 8, 10, 15, 20, 35, 50], ["4", "6", "8", "10", "15", "20", "35", "50"])
    axes.minorticks_off()
    axes.set_title("How far the images are from the converged ones")
    axes.legend(frameon=False, ncols=2)


if __name__ == "__main__":
    run_program(main)
