"""The file of calibrated schedules: JSON that can be read by eye, with a list of numbers on one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import ASSETS, atomic_path
from .calibrated_schedule import CalibratedSchedule, schedule_from

SHIPPED = ASSETS / "schedules.json"
FORMAT = "adaptive-diffusion/calibrated-schedules/2"


def save_schedules(path: str | Path, schedules: Iterable[CalibratedSchedule]) -> None:
    """Write schedules atomically, as JSON."""
    content = {"format": FORMAT, "schedules": [replace(s, drawn_guidance=None).content() for s in schedules]}
    with atomic_path(path) as temporary:
        temporary.write_text(_compact(json.dumps(content, indent=1)) + "\n", encoding="utf-8")


def load_schedules(path: str | Path) -> tuple[CalibratedSchedule, ...]:
    """Read what `save_schedules` wrote.

    Args:
        path: The file.

    Raises:
        UserError: if the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"there are no calibrated schedules at {path}; make them with python train.py task=schedule, or leave "
            "the path out"
        )
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); calibrate the model again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} holds no calibrated schedules of this project (format {FORMAT!r})")
    try:
        return tuple(schedule_from(found) for found in content["schedules"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); calibrate the model again") from error


def _compact(text: str) -> str:
    """Indented JSON with every list of numbers on one line."""
    return re.sub(r"\[[\s\d.,e+-]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
