"""The figure of the page on calibration shows what ships."""

from __future__ import annotations

from matplotlib.figure import Figure

from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.grids.schedule_file import SHIPPED, load_schedules
from tools.figures import GRIDS, STEPS, draw_errors, draw_grids


def test_the_figure_shows_every_grid_and_that_calibrated_steps_win():
    schedules = [s for s in load_schedules(SHIPPED) if s.guidance_scale == 1.5]
    where, error = Figure().subplots(2, 1)
    draw_grids(where, schedules, NoiseSchedule())
    assert len(where.lines) == len(GRIDS) + len(schedules)
    assert all(len(line.get_xdata()) == STEPS for line in where.lines)

    draw_errors(error, schedules)
    classical, calibrated = error.lines[0].get_ydata(), error.lines[1].get_ydata()
    assert all(c > own for c, own in zip(classical, calibrated, strict=True))
