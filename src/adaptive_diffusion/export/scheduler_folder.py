"""A calibrated schedule as a scheduler of diffusers: its configuration, and the file with its class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .._version import __version__
from ..diffusion.kept_guidance import content_of
from ..grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps
from ..grids.schedule_file import compact
from ..io.files import write_text
from ..solvers.fitted import levels_of, multistep_rows
from .trained import Trained

SCHEDULER = Path(__file__).with_name("calibrated_scheduler.py")
CONFIGURATION = "scheduler_config.json"  # as diffusers names it


def write_scheduler(folder: Path, schedule: CalibratedSchedule, trained: Trained) -> list[Path]:
    """Write what `CalibratedScheduler.from_pretrained` reads, and a copy of that class.

    Args:
        folder: Where the two files go.
        schedule: The calibrated steps.
        trained: How their model was trained.

    Returns:
        The two paths.
    """
    configuration, program = folder / CONFIGURATION, folder / SCHEDULER.name
    write_text(configuration, compact(json.dumps(scheduler_configuration(schedule, trained), indent=1)) + "\n")
    write_text(program, SCHEDULER.read_text(encoding="utf-8"))
    return [configuration, program]


def scheduler_configuration(schedule: CalibratedSchedule, trained: Trained) -> dict[str, Any]:
    """The arguments of `CalibratedScheduler`, JSON types."""
    return {
        "_class_name": "CalibratedScheduler",
        **trained.process.config,
        "prediction_type": trained.prediction_type,
        "clip_sample": trained.bounded,
        "calibrated_for": {
            "model": schedule.model,
            "domain": schedule.domain,
            "guidance_scale": content_of(schedule.guidance_scale),
            "made_by": f"adaptive-diffusion-optimizer {__version__}",
        },
        "calibrated_steps": {
            str(n): {"timesteps": list(steps.timesteps), "weights": _weights(steps, trained)}
            for n, steps in schedule.steps.items()
        },
    }


def _weights(steps: CalibratedSteps, trained: Trained) -> list[list[float]] | None:
    """(n, K + 1) weights of x / alpha and of the latest clean predictions, or None for DPM-Solver++(2M)."""
    if steps.corrections is None:
        return None
    levels = levels_of(trained.process, np.array(steps.timesteps))
    rows: list[list[float]] = multistep_rows(levels, np.array(steps.corrections)).tolist()
    return rows
