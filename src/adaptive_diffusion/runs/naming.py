"""Names and labels of runs, and their progress bar."""

from __future__ import annotations

import logging
import sys
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from ..grids.calibrated import CalibratedGrid
from ..tracking.provenance import choices
from .setup import Setup

log = logging.getLogger(__name__)


def labels(cfg: DictConfig) -> dict[str, str]:
    """The words attached to a run, as an MLflow tag."""
    return {"tags": ",".join(cfg.tags)} if cfg.tags else {}


def run_name(cfg: DictConfig, steps: str | None = None) -> str:
    """The name given, or one made from the choices and the steps: those asked for, unless it is said what was taken."""
    return cfg.name or " ".join([*method(cfg), cfg.domain.name, f"{steps or cfg.num_steps} steps seed {cfg.seed}"])


def method(cfg: DictConfig) -> tuple[str, ...]:
    """How pictures are drawn: the scheduler, and the grid if it is not the scheduler's own."""
    scheduler = choices().get("scheduler", cfg.scheduler._target_.rpartition(".")[2])
    grid = choices().get("grid", cfg.grid._target_.rpartition(".")[2])
    return (scheduler,) if grid in ("own", "own_spacing") else (scheduler, grid)


def origin(setup: Setup) -> str:
    """Where the scheduler's timesteps come from, in brackets, if it says so."""
    grid = setup.grid.origin if isinstance(setup.grid, CalibratedGrid) else ""
    known = ", ".join(filter(None, (setup.sampler.origin, grid)))
    return f" ({known})" if known else ""


def progress_bar(total: int, unit: str, initial: int = 0, **options: Any) -> Any:
    """A tqdm bar on a terminal, nothing elsewhere."""
    quiet = not sys.stderr.isatty()
    return tqdm(total=total, unit=unit, initial=initial, disable=quiet, leave=False, dynamic_ncols=True, **options)
