"""What a configuration must satisfy before anything is built, and what its choices must not contradict."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..diffusion.checks import check_name, check_number
from ..errors import UserError, sentence
from ..grids.base import Spacing
from ..grids.calibrated import CalibratedGrid, known_schedules
from ..program import command
from ..schedulers.adaptive import AdaptiveScheduler
from ..schedulers.core import SchedulerCore
from ..types import PictureModel
from .setting_types import typed

log = logging.getLogger(__name__)


@contextlib.contextmanager
def as_user_error() -> Iterator[None]:
    """A block that checks what the user gave: its ValueError is raised as the user's mistake."""
    try:
        yield
    except ValueError as error:
        raise UserError(sentence(error)) from None


def checked(cfg: DictConfig) -> DictConfig:
    """A copy of the configuration, in which every setting has the type that its constructor declares.

    Hydra looks for missing values only when they are used, and lets `+key=value` add anything.

    Raises:
        UserError: for a value that is missing, a key that does not exist, or a name that cannot name a run or a file.
    """
    if missing := sorted(map(str, OmegaConf.missing_keys(cfg))):
        raise UserError(f"{', '.join(missing)} must be given, e.g. {missing[0]}=<value>")
    cfg = typed(cfg)

    # Runs are named by `name`, and files by domains.
    with as_user_error():
        if cfg.name:
            check_name("name", cfg.name)
        for tag in cfg.tags:
            check_name("each of tags", tag)
        if OmegaConf.is_dict(cfg.domain) and "name" in cfg.domain:
            check_name("domain.name", cfg.domain.name, of_file=True)
        for domain in OmegaConf.select(cfg, "task.data", default={}):
            check_name("a domain of task.data", domain, of_file=True)

    return cfg


def check_calibration(name: str, node: Any, cfg: DictConfig, model: PictureModel) -> None:
    """Refuse calibrated steps of a named model or domain that do not exist; others would be used in their place.

    Args:
        name: Key of the settings, e.g. `scheduler.calibration`.
        node: The settings, see `find_schedule`; anything else is accepted.
        cfg: The configuration, fitted to the model.
        model: The model that draws.

    Raises:
        UserError: naming the setting.
    """
    if not OmegaConf.is_dict(node) or not {"path", "model", "domain", "guidance_scale"} <= set(node):
        return
    with as_user_error():
        check_number(f"{name}.guidance_scale", node.guidance_scale, 0)

    # Only what differs from the run's own model and domain was asked for by name.
    own = {"model": model.identity, "domain": cfg.domain.name}
    wanted = {key: node[key] for key, value in own.items() if node[key] != value}
    if not wanted:
        return

    known = known_schedules(node.path, node.model, node.get("kept"))
    of_model = [schedule for schedule in known if schedule.model == node.model]
    for key, value in wanted.items():
        names = sorted({getattr(schedule, key) for schedule in of_model})
        if value not in names:
            others = f"of this model there are {', '.join(names)}" if names else "nor others of this model"
            raise UserError(
                f"there are no calibrated steps with {name}.{key}={value}, {others}; leave {name}.{key} out, or "
                f"calibrate with {command('train')} task=schedule"
            )


def warn_of_another_domain(cfg: DictConfig, scheduler: SchedulerCore, grid: Spacing | None) -> None:
    """Warn of calibrated steps of another domain, which are used where the run's own was not calibrated."""
    for calibration, node in (
        (getattr(scheduler, "calibration", None), cfg.scheduler.get("calibration")),
        (getattr(grid, "calibrated", None), cfg.grid),
    ):
        if calibration is not None and OmegaConf.is_dict(node) and node.get("domain") not in (None, calibration.domain):
            log.warning(
                "domain=%s was not calibrated: the steps are those of %s; calibrate it with "
                "%s task=schedule task.domains=[%s]",
                *(node.domain, calibration.domain, command("train"), node.domain),
            )


def check_grid(scheduler: SchedulerCore, grid: Spacing | None) -> None:
    """Warn of timesteps of the scheduler that a grid replaces.

    Raises:
        UserError: for the calibrated grid beside a scheduler that uses calibrated steps without being asked.
    """
    if grid is None:
        return
    if isinstance(scheduler, AdaptiveScheduler) and isinstance(grid, CalibratedGrid):
        raise UserError(
            "grid=calibrated would leave out the weights that this scheduler draws calibrated steps with; leave grid "
            "out (scheduler.calibration.path takes a file of your own), or take scheduler=dpm_solver for the timesteps "
            "alone"
        )
    if getattr(scheduler, "calibration", None) is not None:
        log.warning("grid=... draws with its own timesteps instead of the calibrated ones; leave grid out to use these")
    elif scheduler.source:
        log.warning("the grid replaces the timesteps of %s; leave grid out for them", scheduler.source)
