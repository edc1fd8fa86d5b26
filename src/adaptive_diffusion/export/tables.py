"""Tables of noise levels and timesteps, for programs that take a list of sigmas: ComfyUI, k-diffusion and others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..diffusion.guidance import name_of
from ..grids.calibrated_schedule import CalibratedSchedule
from ..grids.schedule_file import compact
from ..io.files import write_text
from ..solvers.fitted import levels_of
from .trained import Trained

WARNING = (
    "A table holds where the model is evaluated, not the calibrated weights; without them most of the gain is lost "
    "(measured in docs/guide/export.md)."
)


def write_tables(folder: Path, schedule: CalibratedSchedule, trained: Trained) -> list[Path]:
    """Write `sigmas.json` and `sigmas.txt`.

    Args:
        folder: Where the two files go.
        schedule: The calibrated steps.
        trained: How their model was trained.

    Returns:
        The two paths.
    """
    found = tables(schedule, trained)
    as_json, as_text = folder / "sigmas.json", folder / "sigmas.txt"
    content = {"warning": WARNING, "for": _subject(schedule), "solver": "DPM-Solver++(2M)", "steps": found}
    write_text(as_json, compact(json.dumps(content, indent=1)) + "\n")

    lines = [f"# Calibrated for {_subject(schedule)}; draw with DPM-Solver++(2M).", f"# {WARNING}"]
    for n, table in found.items():
        lines += ["", f"# {n} steps: sigmas, then timesteps", *(", ".join(map(str, row)) for row in table.values())]
    write_text(as_text, "\n".join(lines) + "\n")
    return [as_json, as_text]


def tables(schedule: CalibratedSchedule, trained: Trained) -> dict[str, dict[str, list[float]]]:
    """Number of steps n -> `sigmas`, n + 1 decreasing noise levels sigma / alpha that end in 0, and n `timesteps`."""
    return {
        str(n): {
            "sigmas": [float(f"{level:.8g}") for level in levels_of(trained.process, np.array(steps.timesteps))],
            "timesteps": list(steps.timesteps),
        }
        for n, steps in schedule.steps.items()
    }


def _subject(schedule: CalibratedSchedule) -> str:
    return f"model {schedule.model:.12}, {schedule.domain}, guidance {name_of(schedule.guidance_scale)}"
