"""How runs are named in words."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ..benchmark.measure import steps_digest
from ..diffusion.guidance import name_of
from ..grids.calibrated import CalibratedGrid
from ..grids.calibrated_schedule import CalibratedSchedule
from ..grids.candidates import CANDIDATES, in_words
from ..io.counted import count
from ..schedulers.adaptive import AdaptiveScheduler
from ..tracking.jobs import planned_jobs, varied
from ..tracking.provenance import choices
from .job import in_sweep
from .job_names import setting_words
from .setup import Setup

GRIDS = {"quadratic": "quadratic grid", "log_snr": "log-SNR grid", "blended": "blended grid"}  # the classical ones


def candidate(name: str) -> str:
    """A calibrated candidate in words, with its timesteps and weights in brackets unless it is a classical grid."""
    return f"{name} ({in_words(name)})" if name in CANDIDATES else GRIDS.get(name, name)


def run_name(cfg: DictConfig, steps: str | None = None) -> str:
    """The given name, or a name made from the choices and the steps; in a sweep it begins with what varies.

    Args:
        cfg: The configuration of a sampling run.
        steps: Steps that were taken, in words; None: those that were asked for.
    """
    first = setting_words(varied_here())
    always = [*drawn_by(cfg), cfg.domain.name, steps or count(cfg.num_steps, "step"), f"seed {cfg.seed}"]
    return cfg.name or " ".join([*first, *(part for part in always if part not in first)])


def varied_here() -> tuple[str, ...]:
    """The settings of this job that not all jobs of its sweep share; () outside a sweep."""
    if not in_sweep():
        return ()
    hydra = HydraConfig.get()
    return varied(planned_jobs(Path(hydra.sweep.dir))).get(hydra.job.num, ())


def drawn_by(cfg: DictConfig) -> tuple[str, ...]:
    """How images are drawn: the scheduler, and the grid if it is not the scheduler's own."""
    scheduler = choices().get("scheduler", cfg.scheduler._target_.rpartition(".")[2])
    grid = choices().get("grid", cfg.grid._target_.rpartition(".")[2])
    return (scheduler,) if grid in ("own", "own_spacing") else (scheduler, grid)


def guidance_of_steps(setup: Setup) -> str:
    """The guidance that the steps were calibrated with, where the run draws with another; "" elsewhere."""
    calibration = _calibration(setup)
    if calibration is None or calibration.drawn_guidance is None:
        return ""
    return name_of(calibration.guidance_scale)


def digest_of_steps(setup: Setup) -> str:
    """What tells the calibrated steps of a run from others; "" where it takes none, or resamples them."""
    return steps_digest(_calibration(setup), len(setup.scheduler))


def timesteps_source(setup: Setup) -> str:
    """Where the timesteps come from, in plain words; "" if the scheduler does not say."""
    grid = setup.grid.origin if isinstance(setup.grid, CalibratedGrid) else ""
    return ", ".join(filter(None, (setup.sampler.origin, grid)))


def _calibration(setup: Setup) -> CalibratedSchedule | None:
    """The calibration whose timesteps a run takes; None where it takes others."""
    grid, scheduler = setup.grid, setup.scheduler
    if grid is not None:
        return grid.calibrated if isinstance(grid, CalibratedGrid) else None
    return scheduler.calibration if isinstance(scheduler, AdaptiveScheduler) and scheduler.recipe.rule else None
