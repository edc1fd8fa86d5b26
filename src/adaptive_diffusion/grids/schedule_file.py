"""The file of calibrated schedules: JSON that can be read by eye, with a list of numbers on one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import UnusableFile
from ..io.checksums import check, with_checksum
from ..io.files import ASSETS, read_document, write_text
from .calibrated_schedule import CalibratedSchedule, schedule_from

SHIPPED = ASSETS / "schedules.json"
FORMAT = "adaptive-diffusion/calibrated-schedules/2"


def save_schedules(
    path: str | Path, schedules: Iterable[CalibratedSchedule], recipes: Mapping[str, str] | None = None
) -> None:
    """Write schedules atomically, as JSON.

    Args:
        path: Target.
        schedules: What is known.
        recipes: Anything that names a calibration -> hash of how it was made; `load_recipes` gives it back.
    """
    known = [schedule.as_calibrated.content() for schedule in schedules]
    content = {"format": FORMAT, "schedules": known, "recipes": recipes or {}}
    write_text(path, compact(json.dumps(with_checksum(content), indent=1)) + "\n")


def load_schedules(path: str | Path) -> tuple[CalibratedSchedule, ...]:
    """Read what `save_schedules` wrote.

    Args:
        path: The file.

    Raises:
        UnusableFile: if the file is missing, damaged, changed or of another kind.
    """
    path = Path(path)
    content = _content(path)
    try:
        schedules = tuple(schedule_from(found) for found in content["schedules"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableFile(f"{path} is damaged ({error})", advice="calibrate the model again") from error
    check(path, content)
    return schedules


def load_recipes(path: str | Path) -> dict[str, str]:
    """The recipes that were saved with schedules; for a file that `load_schedules` reads."""
    recipes = _content(Path(path)).get("recipes", {})
    return recipes if isinstance(recipes, dict) else {}


def _content(path: Path) -> dict[str, Any]:
    return read_document(path, FORMAT, "calibrated schedules", "schedule")


def compact(text: str) -> str:
    """Indented JSON with every list of numbers on one line."""
    return re.sub(r"\[[\s\d.,e+-]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
