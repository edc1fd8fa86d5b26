"""`scheduler=adaptive` calibrates itself the first time it meets a model, guidance, domain or number of steps."""

from __future__ import annotations

import logging

import mlx.core as mx
from omegaconf import DictConfig, OmegaConf

from ..calibration.first_use import Estimate, estimate
from ..calibration.quick import QuickCalibration
from ..calibration.store import ScheduleFile
from ..diffusion.guided_model import GuidedModel
from ..encoder.captions import plain_caption
from ..grids.calibrated import find_schedule, kept_file
from ..io.locks import in_turn
from ..types import PictureModel
from .naming import progress_bar

log = logging.getLogger(__name__)


def calibrate_on_first_use(cfg: DictConfig, model: PictureModel, condition: tuple[int, ...]) -> None:
    """Calibrate what the run is about to draw, if nothing fits it yet and the calibration is affordable.

    The result is kept under `paths.outputs`, in a file of the model, where `find_schedule` finds it.

    Args:
        cfg: The configuration, fitted to the model.
        model: The model that draws.
        condition: Class ids of every image.
    """
    if cfg.scheduler.get("calibrate") not in ("auto", "always") or not _calibrates_itself(cfg) or not model.identity:
        return

    file = ScheduleFile(kept_file(cfg.scheduler.calibration.kept, model.identity))
    if _fits(cfg, model):
        return

    problem = _problem(cfg, model, condition)
    recipe = QuickCalibration(steps=(cfg.num_steps,), batch_size=cfg.batch_size)
    cost = estimate(problem, recipe, cfg.num_samples * cfg.num_steps)
    if cfg.scheduler.calibrate == "auto" and not cost.affordable:
        log.info("%s", _unaffordable(cfg, cost))
        return

    # Of two processes that come here at once, the second waits, and then finds what it needs.
    with in_turn(file.path.with_suffix(".calibrating")):
        if _fits(cfg, model):
            return
        log.info("calibrating once: %s evaluations, about %s", f"{cost.evaluations:,}", _duration(cost.seconds))
        with progress_bar(cost.evaluations, "evaluation") as bar:
            for _ in file.calibrate(problem, recipe, bar.update):
                pass
    log.info("%-11s%s", "calibrated", file.path)


def _calibrates_itself(cfg: DictConfig) -> bool:
    """Whether the run would use a calibration that no file of the user's decides."""
    calibration = cfg.scheduler.get("calibration")
    chosen = not OmegaConf.is_dict(calibration) or calibration.get("path") is not None
    return not chosen and cfg.num_steps >= 2 and cfg.grid.get("_target_", "").endswith("own_spacing")


def _fits(cfg: DictConfig, model: PictureModel) -> bool:
    """Whether the domain was calibrated for this number of steps, near enough to this guidance."""
    found = find_schedule(None, model.identity, cfg.domain.name, cfg.guidance_scale, cfg.scheduler.calibration.kept)
    return found is not None and found.domain == cfg.domain.name and found.weights_hold and cfg.num_steps in found.steps


def _problem(cfg: DictConfig, model: PictureModel, condition: tuple[int, ...]) -> GuidedModel:
    """The model in the domain: half of its images show what the run shows, where that is something special."""
    domain = cfg.domain.name
    plain = model.condition(domain, None, plain_caption(domain, None))
    problem = GuidedModel.from_model(model, condition, cfg.guidance_scale, domain=domain)
    conditions = dict.fromkeys((condition, plain))
    if len(conditions) > 1 and all(len(ids) == len(condition) for ids in conditions):
        problem = problem.with_condition(mx.array(list(conditions), dtype=mx.int32))
    return problem


def _unaffordable(cfg: DictConfig, cost: Estimate) -> str:
    return (
        f"{cfg.num_steps} steps are not calibrated for this model, domain and guidance; scheduler.calibrate=always "
        f"calibrates them first, with {cost.evaluations:,} evaluations, about {_duration(cost.seconds)}"
    )


def _duration(seconds: float) -> str:
    return f"{max(seconds, 1):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
