"""What a configuration must satisfy before anything is built, and what its choices must not contradict."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from ..diffusion.checks import STRONG_GUIDANCE, check_name, check_number
from ..diffusion.guidance import Constant, Guidance, checked_guidance, name_of
from ..diffusion.guided_model import GuidedModel
from ..diffusion.node import nodes_at
from ..errors import UserError, sentence
from ..grids.base import Spacing
from ..grids.calibrated import CalibratedGrid, known_schedules
from ..optimization.tuned import default_guidance, find_tuned, tuned_guidance, tuned_record, tuned_scheduler
from ..program import command
from ..schedulers.adaptive import AdaptiveScheduler
from ..schedulers.core import SchedulerCore
from ..tracking.provenance import choices
from ..types import PictureModel, Scheduler
from .setting_types import target_of, typed

log = logging.getLogger(__name__)

TUNED_GUIDANCE = (tuned_guidance, default_guidance)  # what makes guidance of a tuned configuration


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """A block that checks what the user gave: its ValueError is raised as the user's mistake."""
    try:
        yield
    except ValueError as error:
        raise UserError(sentence(error)) from None


def check_setting(check: Callable[..., Any], cfg: DictConfig, key: str, *bounds: float | None) -> None:
    """Check one setting with a function of `diffusion.checks`, which takes its name, its value and its bounds.

    Raises:
        UserError: if the function raises ValueError.
    """
    with refused():
        check(key, cfg[key], *bounds)


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
    with refused():
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
    with refused():
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


def warn_of_another_domain(cfg: DictConfig, scheduler: Scheduler, grid: Spacing | None) -> None:
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


def warn_of_strong_guidance(guidance: float | Guidance) -> None:
    """Warn of a weight far above those in use."""
    weight = getattr(guidance, "weight", guidance)
    if isinstance(weight, float | int) and weight > STRONG_GUIDANCE:
        log.warning("guidance %g is far above common weights, 1 to 15: expect saturated colours and noise", weight)


def is_tuned(node: DictConfig) -> bool:
    """Whether a group takes what `train.py agent=...` found."""
    return target_of(node) in (*TUNED_GUIDANCE, tuned_scheduler)


def check_tuned(cfg: DictConfig) -> None:
    """Refuse a tuned scheduler where nothing was tuned, unless `check_guided` has to refuse its guidance first.

    Raises:
        Unusable: see `find_tuned`.
    """
    if is_tuned(cfg.scheduler) and target_of(cfg.guidance) in (Constant, *TUNED_GUIDANCE):
        find_tuned(**_tuned_as(cfg), guidance_scale=cfg.guidance_scale)


def check_guided(cfg: DictConfig, guidance: float | Guidance) -> None:
    """Refuse a scheduler that was trained or tuned with other guidance than one that changes on the way.

    A scheduler that was tuned together with its guidance is warned of with a constant weight.

    Raises:
        UserError: naming both.
    """
    changes = guidance.name if isinstance(guidance, Guidance) else ""
    if is_tuned(cfg.scheduler):
        suits = _tuned_guidance(cfg)
        if suits == guidance:
            return
        if changes:
            own = "" if suits is None else f", {name_of(suits)},"
            raise UserError(
                f"a tuned scheduler draws with the guidance that it was tuned with{own} and here it is {changes}; take "
                "guidance=tuned, guidance=constant, or another scheduler"
            )
        if suits not in (None, cfg.guidance_scale):
            log.warning("the scheduler was tuned with guidance %s; guidance=tuned draws with it", name_of(suits))
    elif changes and "guidance_scale" in cfg.scheduler:
        scheduler = choices().get("scheduler", cfg.scheduler._target_.rpartition(".")[2])
        raise UserError(
            f"scheduler={scheduler} was made with one weight of guidance at all noise levels, and here it is "
            f"{changes}; take guidance=constant, or another scheduler"
        )


def _tuned_guidance(cfg: DictConfig) -> Any:
    """The guidance that a tuned scheduler was tuned with; None where nothing was tuned."""
    record = tuned_record(**_tuned_as(cfg), guidance_scale=cfg.guidance_scale)
    return None if record is None else checked_guidance(record.to_config().guidance or cfg.guidance_scale)


def warn_of_no_guidance(denoiser: GuidedModel, timesteps: np.ndarray) -> None:
    """Warn of guidance that changes on the way, where it holds at none of the timesteps."""
    guidance, nodes = denoiser.guidance_scale, nodes_at(denoiser.process, timesteps)
    if isinstance(guidance, Guidance) and all(denoiser.weight_at(node) == 1 for node in nodes):
        log.warning("no step is guided: guidance is %s, and 1 is none", guidance.name)


def _tuned_as(cfg: DictConfig) -> dict[str, Any]:
    """Where, and for what, a tuned scheduler was tuned."""
    return {name: cfg.scheduler[name] for name in ("path", "trained", "model", "domain")}


def check_grid(scheduler: Scheduler, grid: Spacing | None) -> None:
    """Warn of timesteps of the scheduler that a grid replaces.

    Raises:
        UserError: for the calibrated grid beside a scheduler that uses calibrated steps without being asked.
    """
    if grid is None or not isinstance(scheduler, SchedulerCore):
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
