"""The file of calibrated schedules: JSON that can be read by eye, with a list of numbers on one line."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..diffusion.schedule import NoiseSchedule
from ..errors import UnusableFile, plainly
from ..io.checksums import check, with_checksum
from ..io.files import ASSETS, read_document, write_text
from .calibrated_schedule import CalibratedSchedule, log_snr_of, schedule_from

SHIPPED = ASSETS / "schedules.json"
FORMAT = "adaptive-diffusion/calibrated-schedules/2"


def save_schedules(
    path: str | Path, schedules: Iterable[CalibratedSchedule], recipes: Mapping[str, str] | None = None
) -> None:
    """Write schedules atomically, as JSON.

    Args:
        path: Target.
        schedules: What is known.
        recipes: Anything that names a calibration -> hash of how it was made; `read_schedules` gives it back.

    Raises:
        ValueError: for anything else than schedules.
    """
    schedules = list(schedules)
    if wrong := [given for given in schedules if not isinstance(given, CalibratedSchedule)]:
        raise ValueError(f"schedules must be a list of calibrated schedules, got {wrong[0]!r:.80}")

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
    return read_schedules(path)[0]


@functools.cache
def shipped_schedules() -> tuple[CalibratedSchedule, ...]:
    """The schedules that ship; the noise process of their model is the default one."""
    process = log_snr_of(NoiseSchedule())
    return tuple(replace(schedule, log_snr=process) for schedule in load_schedules(SHIPPED))


def read_schedules(path: str | Path) -> tuple[tuple[CalibratedSchedule, ...], dict[str, str]]:
    """Read what `save_schedules` wrote: the schedules, and how they were made; see `load_schedules`."""
    path = Path(path)
    content = read_document(path, FORMAT, "calibrated schedules", "schedule")
    try:
        schedules = tuple(schedule_from(found) for found in content["schedules"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableFile(f"{path} is damaged ({plainly(error)})", advice="calibrate the model again") from error
    check(path, content)
    recipes = content.get("recipes", {})
    return schedules, recipes if isinstance(recipes, dict) else {}


def compact(text: str) -> str:
    """Indented JSON with every list of numbers on one line."""
    return re.sub(r"\[[\s\d.,e+-]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
