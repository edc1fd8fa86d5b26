"""The plot of a schedule has its line where the values are; labels of sheets can be seen."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from adaptive_diffusion.io import figures
from adaptive_diffusion.io.figures import labelled, save_schedule_plot
from adaptive_diffusion.io.line_plot import HEIGHT, INK, WIDTH, _ticks, line_plot


def inked(plot):
    """(rows, columns) of the pixels of the line."""
    ink = np.array([int(INK[i : i + 2], 16) for i in (1, 3, 5)])
    return np.nonzero((np.abs(plot.astype(int) - ink) < 8).all(axis=-1))


def test_a_line_that_rises_evenly_is_straight():
    rows, columns = inked(line_plot(np.linspace(-4, 4, 9), "step", "value"))
    slope, start = np.polyfit(columns, rows, 1)
    assert slope < 0  # rows count downwards
    assert np.abs(rows - (slope * columns + start)).max() < 5  # pixels: the radius of a dot


@pytest.mark.parametrize("values", [[5.0], [2.0, 2.0, 2.0], [-np.inf, 0.0, 1.0], [np.inf], list(range(300))])
def test_every_schedule_has_a_plot(values):
    plot = line_plot(np.array(values), "step", "value")
    assert plot.shape == (HEIGHT, WIDTH, 3)
    assert len(inked(plot)[0]) > 0 or values == [np.inf]


def test_an_axis_from_zero_shows_shares():
    rows, _ = inked(line_plot(np.array([8.0] * 5 + [4.0] * 5), "step", "images", from_zero=True))
    bottom = HEIGHT - 50
    assert (bottom - rows.max()) / (bottom - rows.min()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(-48, 1048, [0, 200, 400, 600, 800, 1000]), (0.85, 2.15, [1, 1.5, 2]), (0.5, 1.5, None)]
)
def test_ticks_are_round_numbers_within_the_axis(low, high, ticks):
    found = _ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low <= tick <= high for tick in found)
    assert ticks is None or set(ticks) <= {round(tick, 9) for tick in found}


@pytest.mark.parametrize(("running", "panels"), [([4, 4, 4], 2), ([4, 4, 2], 3)])
def test_the_number_of_images_left_is_shown_if_it_changes(running, panels, tmp_path):
    save_schedule_plot(tmp_path / "a.png", np.array([9, 5, 1]), np.array([-3, 0, 3]), "a title", np.array(running))
    assert Image.open(tmp_path / "a.png").width == panels * WIDTH


@pytest.mark.parametrize(("running", "of_some"), [([0, 4, 4], False), ([0, 4, 2], True)])
def test_a_stored_first_evaluation_is_no_image_that_stopped(running, of_some, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(figures, "titled", lambda pixels, title: titles.append(title) or pixels)
    save_schedule_plot(tmp_path / "a.png", np.array([9, 5, 1]), np.array([-3, 0, 3]), "a title", np.array(running))
    assert ["longest" in title for title in titles] == [of_some]


def test_matplotlib_is_not_imported_for_it(tmp_path):
    code = (
        "import sys, numpy as np; from adaptive_diffusion.io.figures import save_schedule_plot\n"
        f"save_schedule_plot({str(tmp_path / 'a.png')!r}, *[np.arange(3)] * 2, 'a title', np.ones(3))\n"
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_labels_are_dark_and_never_transparent(channels):
    sheet = labelled(np.full((40, 40, channels), 255, np.uint8), ["#0"])
    assert (sheet[..., : min(channels, 3)].min(axis=(0, 1)) < 64).all()
    assert channels < 4 or sheet[..., 3].min() == 255
