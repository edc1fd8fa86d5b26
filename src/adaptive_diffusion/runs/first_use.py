"""`scheduler=adaptive` calibrates itself the first time it meets a model, guidance, domain or number of steps."""

from __future__ import annotations

import logging

from omegaconf import DictConfig, OmegaConf

from ..calibration.first_use import Estimate, estimate
from ..calibration.quick import QuickCalibration
from ..calibration.store import ScheduleFile
from ..diffusion.guidance import reads_text
from ..diffusion.guided_model import GuidedModel
from ..encoder.captions import plain_caption
from ..grids.calibrated import find_schedule, kept_file
from ..io.locks import in_turn
from ..sampling.timing import duration
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
    if cfg.scheduler.get("calibrate") not in ("auto", "always") or not _calibrates_itself(cfg, model):
        return

    file = ScheduleFile(kept_file(cfg.scheduler.calibration.kept, model.identity))
    if _fits(cfg, model):
        return

    in_domain = _in_domain(cfg, model, condition)
    recipe = QuickCalibration(steps=(cfg.num_steps,), batch_size=cfg.batch_size)
    cost = estimate(in_domain, recipe, cfg.num_samples * cfg.num_steps)
    if cfg.scheduler.calibrate == "auto" and not cost.affordable:
        log.info("%s", _unaffordable(cfg, cost))
        return

    # Of two processes that come here at once, the second waits, and then finds what it needs.
    with in_turn(file.path.with_suffix(".calibrating")):
        if _fits(cfg, model):
            return
        log.info("calibrating once: %s evaluations, about %s", f"{cost.evaluations:,}", duration(cost.seconds))
        with progress_bar(cost.evaluations, "evaluation") as bar:
            for _ in file.calibrate(in_domain, recipe, bar.update):
                pass
    log.info("%-11s%s", "calibrated", file.path)


def _calibrates_itself(cfg: DictConfig, model: PictureModel) -> bool:
    """Whether the run would use a calibration that no file of the user's decides."""
    calibration = cfg.scheduler.get("calibration")
    if not OmegaConf.is_dict(calibration) or calibration.get("path") is not None:
        return False
    if not model.identity:
        return False

    own = {"model": model.identity, "domain": cfg.domain.name, "guidance_scale": cfg.guidance_scale}
    given_by_user = any(calibration.get(name) != value for name, value in own.items())
    return not given_by_user and cfg.num_steps >= 2 and cfg.grid.get("_target_", "").endswith("own_spacing")


def _fits(cfg: DictConfig, model: PictureModel) -> bool:
    """Whether the domain was calibrated for this number of steps, near enough to this guidance."""
    kept, domain = cfg.scheduler.calibration.kept, cfg.domain.name
    found = find_schedule(None, model.identity, domain, cfg.guidance_scale, kept)
    return found is not None and found.domain == cfg.domain.name and found.weights_hold and cfg.num_steps in found.steps


def _in_domain(cfg: DictConfig, model: PictureModel, condition: tuple[int, ...]) -> GuidedModel:
    """The model in the run's domain, whatever the label; a model that reads gets the run's prompt."""
    domain = cfg.domain.name
    class_ids = condition if reads_text(model) else model.condition(domain, None, plain_caption(domain, None))
    return GuidedModel.from_model(model, class_ids, cfg.guidance_scale, domain=domain)


def _unaffordable(cfg: DictConfig, cost: Estimate) -> str:
    return (
        f"{cfg.num_steps} steps are not calibrated for this model, domain and guidance; scheduler.calibrate=always "
        f"calibrates them first, with {cost.evaluations:,} evaluations, about {duration(cost.seconds)}"
    )
