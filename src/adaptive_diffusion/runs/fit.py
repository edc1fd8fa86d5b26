"""What the model decides of a configuration: open settings, and the scheduler's arguments."""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..diffusion.checks import check_guidance
from ..diffusion.facts import ModelFacts
from ..diffusion.guidance import Constant, Guidance, Interval, effective_guidance
from ..diffusion.schedule import NoiseSchedule
from ..errors import UserError
from ..optimization.tuned import default_guidance
from ..types import PictureModel
from .checks import TUNED_GUIDANCE, is_tuned, refused
from .setting_types import arguments_of, target_of

log = logging.getLogger(__name__)

DEFAULT_STEPS = 10  # where neither the user nor a tuned scheduler says how many


def fitted(cfg: DictConfig, model: PictureModel) -> DictConfig:
    """A copy of the configuration with everything filled in that the model decides.

    Raises:
        UserError: if the configuration contradicts the model.
    """
    cfg = cfg.copy()

    # `model: null` in a group stands for the model that draws.
    for node in (cfg.scheduler, cfg.scheduler.get("calibration"), cfg.grid, cfg.get("sampler"), cfg.guidance):
        if OmegaConf.is_dict(node) and node.get("model", "") is None:
            node.model = model.identity

    # A tuned scheduler has a number of steps of its own.
    if cfg.num_steps is None and "trained" not in cfg.scheduler:
        cfg.num_steps = DEFAULT_STEPS

    # One file holds steps and guidance.
    if is_tuned(cfg.scheduler) and is_tuned(cfg.guidance) and cfg.guidance.path is None:
        cfg.guidance.path = cfg.scheduler.path

    # A first prediction is known for plain noise only.
    begun = [name for name in ("init_image", "variation") if cfg.get(name) is not None]
    if begun and cfg.scheduler.get("first_evaluation", "network") != "network":
        log.info("with %s the first prediction is evaluated, as by scheduler.first_evaluation=network", begun[0])
        cfg.scheduler.first_evaluation = "network"

    _fit_guidance(cfg, model)
    cfg.image_size = _image_size(cfg.image_size, model)
    return cfg


def _fit_guidance(cfg: DictConfig, model: PictureModel) -> None:
    """Settle the weight of guidance in a configuration, which `guidance_scale` and `guidance.weight` both say.

    Raises:
        UserError: if they contradict each other, or `guidance` takes no weight and one is given.
    """
    guidance, scale = cfg.guidance, cfg.guidance_scale
    takes_weight = "weight" in guidance
    own = takes_weight and not OmegaConf.is_interpolation(guidance, "weight")

    if scale is not None and not takes_weight:
        raise UserError(f"guidance_scale={scale:g} has no effect: this guidance says its weights itself; leave it out")
    if scale is not None and own and scale != guidance.weight:
        raise UserError(
            f"guidance_scale={scale:g} and guidance.weight={guidance.weight:g} contradict each other; give one of them"
        )

    cfg.guidance_scale = _guidance(guidance.weight if own else scale, model)
    kind = target_of(guidance)
    if cfg.guidance_scale == 0 and model.conditional and kind in (Constant, Interval, *TUNED_GUIDANCE):
        where = " where guidance is applied" if kind is Interval else ""
        log.warning("guidance_scale=0 draws without domain and label%s, whatever they are; 1 is no guidance", where)
    if own:
        guidance.weight = cfg.guidance_scale

    if kind is default_guidance and guidance.constant is None:
        more_than_a_domain = any(given is not None for given in (scale, cfg.label, cfg.init_image))
        of_one_weight = "guidance_scale" in cfg.scheduler and not is_tuned(cfg.scheduler)
        guidance.constant = more_than_a_domain or own or of_one_weight


def keyed_by_guidance(cfg: DictConfig, guidance: float | Guidance) -> DictConfig:
    """The configuration by which calibrated steps are looked for: by all of the guidance, not by its weight alone."""
    if not isinstance(guidance, Guidance):
        return cfg
    cfg = cfg.copy()
    for node in (cfg.scheduler.get("calibration"), cfg.grid):
        if OmegaConf.is_dict(node) and node.get("guidance_scale") == cfg.guidance_scale:
            OmegaConf.update(node, "guidance_scale", OmegaConf.to_container(cfg.guidance, resolve=True))
    return cfg


def _guidance(given: float | None, model: PictureModel) -> float:
    """The guidance that a model draws with: its default where none was given."""
    scale = float(ModelFacts.of(model).guidance_scale) if given is None else given
    with refused():
        check_guidance(scale)

    effective = effective_guidance(model, scale)
    if effective != scale:
        log.info("guidance_scale=%g is none, 1, for a model that reads the prompt", scale)
    return effective


def _image_size(given: int | None, model: PictureModel) -> int | None:
    """Side of the images that are written, in pixels; None for a model whose images are not square."""
    height, width = model.picture_size
    if given is None:
        return height if height == width else None
    if height != width:
        raise UserError(f"image_size={given} makes square images, and this model draws {width}x{height}; leave it out")
    return given


def scheduler_arguments(cfg: DictConfig, model: PictureModel) -> dict[str, Any]:
    """The arguments of the scheduler that the model decides: noise schedule, prediction type, and whether to clip.

    Clean predictions of a model that works on latents are not clipped. A limit in the configuration is kept.

    Raises:
        UserError: for a setting that contradicts the model, or a model that does not say what it predicts.
    """
    given, known = cfg.scheduler, ModelFacts.of(model)
    arguments, others = arguments_of(target_of(given))
    trained = {**known.process.config, "prediction_type": known.prediction_type}

    for key in trained.keys() & given.keys():
        if given[key] is not None and given[key] != trained[key]:
            raise UserError(
                f"scheduler.{key}={given[key]} contradicts the model, which was trained with {trained[key]}; leave "
                f"scheduler.{key} out"
            )
    if (others or "prediction_type" in arguments) and trained["prediction_type"] is None:
        raise UserError(
            "the model file does not say what the model predicts; give model.prediction_type=epsilon, v_prediction or "
            "sample"
        )

    decided = {**trained, "clip_sample": known.bounded}
    return {k: v for k, v in decided.items() if (others or k in arguments) and given.get(k) is None}


def noise_process(model: PictureModel) -> NoiseSchedule:
    """The noise schedule that a model was trained with."""
    return ModelFacts.of(model).process


def image_channels(model: PictureModel) -> int:
    """Channels of a model's images: those of its states, unless the states are latents."""
    return model.state_shape[-1] if model.state_shape[:2] == tuple(model.picture_size) else 3
