"""`scheduler=adaptive` calibrates itself the first time it meets a model, guidance, domain or number of steps."""

from __future__ import annotations

import logging

from omegaconf import DictConfig, OmegaConf

from ..calibration.first_use import Estimate, estimate
from ..calibration.quick import MOST_STEPS, QuickCalibration
from ..calibration.store import ScheduleFile
from ..diffusion.conditions import Conditions, conditions_of
from ..diffusion.facts import ModelFacts
from ..diffusion.guidance import Guidance, reads_text
from ..diffusion.guided_model import GuidedModel
from ..encoder.captions import plain_caption
from ..errors import explain
from ..grids.calibrated import find_schedule, kept_file
from ..grids.calibrated_schedule import CalibratedSchedule
from ..io.locks import in_turn
from ..io.progress import Progress
from ..sampling.timing import duration
from ..types import PictureModel
from .output import log_rows

log = logging.getLogger(__name__)


def calibrate_on_first_use(
    cfg: DictConfig, model: PictureModel, conditions: Conditions, guidance: float | Guidance
) -> CalibratedSchedule | None:
    """Calibrate what the run is about to draw, if nothing fits it yet and the calibration is affordable.

    With `scheduler.calibrate=always`, only what was calibrated with the same guidance fits, and any cost is paid.

    The result is kept under `paths.outputs`, in a file of the model, where `find_schedule` finds it. Where nothing can
    be kept, nothing is calibrated, and the run draws with what there is.

    Args:
        cfg: The configuration, fitted to the model.
        model: The model that draws.
        conditions: What the images of the run are conditioned on.
        guidance: Guidance of the run.

    Returns:
        The calibration that fits, found or just made; None where the run draws with what its scheduler already has.
    """
    if cfg.scheduler.get("calibrate") not in ("auto", "always"):
        return None
    if hindrance := _hindrance(cfg, model):
        if cfg.scheduler.calibrate == "always":
            log.warning("scheduler.calibrate=always calibrates nothing: %s", hindrance)
        return None
    exactly = cfg.scheduler.calibrate == "always"
    if (found := _fitting(cfg, model, guidance, exactly)) is not None:
        return found  # which another run may have kept just now

    in_domain = _in_domain(cfg, model, conditions, guidance)
    recipe = _recipe(cfg)
    cost = estimate(in_domain, recipe, cfg.num_samples * cfg.num_steps)
    if cfg.scheduler.calibrate == "auto" and not cost.affordable:
        log.info("%s", _unaffordable(cfg, cost))
        return None

    file = ScheduleFile(kept_file(cfg.scheduler.calibration.kept, model.identity))
    try:
        lock = file.path.with_suffix(".calibrating")  # of two runs that want the same, the second waits, and finds it
        with in_turn(lock, lambda who: log.info("another run calibrates this model; waiting for %s", who)):
            if _fitting(cfg, model, guidance, exactly) is None:
                _calibrate(file, in_domain, recipe, cost)
            return _known(cfg, model, guidance)
    except OSError as error:
        log.warning("nothing was calibrated, since it cannot be kept: %s", explain(error)[0])
    return None


def cost_in_words(cfg: DictConfig, model: PictureModel, conditions: Conditions, guidance: float | Guidance) -> str:
    """What `scheduler.calibrate=always` would take before the run draws; an evaluation is timed for it.

    Args:
        cfg, model, conditions, guidance: See `calibrate_on_first_use`.
    """
    if hindrance := _hindrance(cfg, model):
        return f"nothing would be calibrated, since {hindrance}"
    if _fitting(cfg, model, guidance, exactly=True) is not None:
        return "calibrated already, and drawn at once"
    cost = estimate(_in_domain(cfg, model, conditions, guidance), _recipe(cfg), cfg.num_samples * cfg.num_steps)
    return f"{cost.evaluations:,} network evaluations of an image, about {duration(cost.seconds)}"


def advice_of_own_guidance(cfg: DictConfig, model: PictureModel) -> str:
    """What calibrates for the guidance of a run whose steps were calibrated with another; "" where nothing would."""
    return "" if _hindrance(cfg, model) else "scheduler.calibrate=always calibrates for the guidance of this run first"


def _calibrate(file: ScheduleFile, model: GuidedModel, recipe: QuickCalibration, cost: Estimate) -> None:
    file.set_aside_if_damaged()  # `find_schedule` has said so
    log.info("calibrating once: %s evaluations, about %s", f"{cost.evaluations:,}", duration(cost.seconds))
    try:
        with Progress("calibrating", cost.evaluations, unit="evaluation") as shown:
            for _ in file.calibrate(model, recipe, shown.update):
                pass
    except KeyboardInterrupt:
        log.info("the calibration was interrupted, and begins anew when it is needed again")
        raise
    log_rows({"kept in": str(file.path)})


def _hindrance(cfg: DictConfig, model: PictureModel) -> str | None:
    """Why the run would not use a calibration of its own; None if it would."""
    calibration = cfg.scheduler.get("calibration")
    own = {"model": model.identity, "domain": cfg.domain.name, "guidance_scale": cfg.guidance_scale}

    if not OmegaConf.is_dict(calibration) or calibration.get("path") is not None:
        return "scheduler.calibration is null, or names a file"
    if any(calibration.get(name) != value for name, value in own.items()):
        return "scheduler.calibration names another model, domain or guidance"
    if calibration.get("kept") is None:
        return "scheduler.calibration.kept=null keeps none"
    if not model.identity:
        return "the model has no identity to keep it by"
    if not cfg.grid.get("_target_", "").endswith("own_spacing") or cfg.init_image is not None:
        return "grid or init_image sets other timesteps"
    if "quality_target" in cfg.sampler:
        return "the sampler chooses the number of steps"
    if not 2 <= cfg.num_steps <= MOST_STEPS:
        return f"2 to {MOST_STEPS} steps can be calibrated, and this run has {cfg.num_steps}"
    nodes, T = _recipe(cfg).reference_nodes, ModelFacts.of(model).process.num_train_timesteps
    if nodes > T:
        return f"a calibration of {cfg.num_steps} steps takes {nodes} training timesteps, and this model has {T}"
    return None


def _recipe(cfg: DictConfig) -> QuickCalibration:
    return QuickCalibration(steps=(cfg.num_steps,), batch_size=cfg.batch_size)


def _fitting(
    cfg: DictConfig, model: PictureModel, guidance: float | Guidance, exactly: bool
) -> CalibratedSchedule | None:
    """What the domain was calibrated with for this number of steps, near enough to this guidance, or exactly at it.

    What was calibrated without guidance at most noise levels is not taken for guidance at every one.
    """
    found = _known(cfg, model, guidance)
    if found is None or cfg.num_steps not in found.steps:
        return None
    if not found.drawn_on(ModelFacts.of(model).process).weights_hold:
        return None
    if model.conditional and found.domain != cfg.domain.name:  # a model without conditions draws the same in all
        return None
    borrowed = not isinstance(guidance, Guidance) and not isinstance(found.guidance_scale, int | float)
    return None if borrowed or (exactly and found.guidance_factor > 1) else found


def _known(cfg: DictConfig, model: PictureModel, guidance: float | Guidance) -> CalibratedSchedule | None:
    """What ships or is kept for the model, the domain and the guidance of the run."""
    kept, domain = cfg.scheduler.calibration.kept, cfg.domain.name
    return find_schedule(None, model.identity, domain, guidance, kept, cfg.num_steps)


def _in_domain(cfg: DictConfig, model: PictureModel, conditions: Conditions, guidance: float | Guidance) -> GuidedModel:
    """The model in the run's domain, whatever the label; a model that reads gets the run's prompt."""
    domain = cfg.domain.name
    if not reads_text(model):
        conditions = conditions_of(model, domain, None, plain_caption(domain, None))
    return GuidedModel.from_model(model, conditions, guidance, domain=domain)


def _unaffordable(cfg: DictConfig, cost: Estimate) -> str:
    return (
        f"{cfg.num_steps} steps are not calibrated for this model, domain and guidance; scheduler.calibrate=always "
        f"calibrates them first, with {cost.evaluations:,} evaluations, about {duration(cost.seconds)}"
    )
