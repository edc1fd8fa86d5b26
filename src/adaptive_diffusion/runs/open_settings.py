"""What the model decides of a configuration: open settings, and the scheduler's arguments."""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..diffusion.facts import ModelFacts
from ..errors import UserError
from ..types import PictureModel
from .guidance_settings import is_tuned, settle_guidance
from .setting_types import arguments_of, target_of
from .settings_text import literal

log = logging.getLogger(__name__)

DEFAULT_STEPS = 10  # where neither the user nor a tuned scheduler says how many


def settled(cfg: DictConfig, model: PictureModel) -> DictConfig:
    """A copy of the configuration with everything filled in that the model decides.

    Raises:
        UserError: if the configuration contradicts the model.
    """
    cfg = cfg.copy()

    # `model: null` in a group stands for the model that draws.
    for node in (cfg.scheduler, cfg.scheduler.get("calibration"), cfg.grid, cfg.get("sampler"), cfg.guidance):
        if OmegaConf.is_dict(node) and node.get("model", "") is None:
            node.model = literal(model.identity)

    # A tuned scheduler has a number of steps of its own.
    if cfg.num_steps is None and "trained" not in cfg.scheduler:
        cfg.num_steps = DEFAULT_STEPS

    # One file holds steps and guidance.
    if is_tuned(cfg.scheduler) and is_tuned(cfg.guidance) and cfg.guidance.path is None:
        cfg.guidance.path = cfg.scheduler.path

    # A first prediction is known for plain noise only.
    begun = [name for name in ("init_image", "variation") if cfg.get(name) is not None]
    if begun and cfg.scheduler.get("first_evaluation", "network") != "network":
        log.info(
            "with %s the network is evaluated at every timestep, as by scheduler.first_evaluation=network", begun[0]
        )
        cfg.scheduler.first_evaluation = "network"

    settle_guidance(cfg, model)
    cfg.image_size = _image_size(cfg.image_size, model)
    return cfg


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
        settable = "prediction_type" in cfg.model
        give = "give model.prediction_type=" if settable else "its metadata need prediction_type: "
        raise UserError(f"the model does not say what it predicts; {give}epsilon, v_prediction or sample")

    decided = {**trained, "clip_sample": known.bounded}
    return {k: v for k, v in decided.items() if (others or k in arguments) and given.get(k) is None}


def image_channels(model: PictureModel) -> int:
    """Channels of a model's images: those of its states, unless the states are latents."""
    return model.state_shape[-1] if model.state_shape[:2] == tuple(model.picture_size) else 3
