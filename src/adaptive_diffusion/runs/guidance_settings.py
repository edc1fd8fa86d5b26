"""The guidance of a run: what settles its weight, which calibrated steps suit it, and what it must not contradict."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from ..diffusion.checks import STRONG_GUIDANCE, check_guidance
from ..diffusion.facts import ModelFacts
from ..diffusion.guidance import (
    Constant,
    Guidance,
    Interval,
    checked_guidance,
    effective_guidance,
    in_effect,
    name_of,
    without_effect,
)
from ..diffusion.guided_model import GuidedModel
from ..diffusion.node import nodes_at
from ..errors import Unusable, UserError
from ..optimization.tuned import default_guidance, find_tuned, tuned_guidance, tuned_records, tuned_scheduler
from ..tracking.provenance import choices
from ..types import PictureModel
from .checks import as_user_error
from .setting_types import target_of
from .settings_text import advice_for_this_model, literals

log = logging.getLogger(__name__)

TUNED_GUIDANCE = (tuned_guidance, default_guidance)  # what makes guidance of a tuned configuration


def is_tuned(node: DictConfig) -> bool:
    """Whether a group takes what `train.py agent=...` found."""
    return target_of(node) in (*TUNED_GUIDANCE, tuned_scheduler)


def settle_guidance(cfg: DictConfig, model: PictureModel) -> None:
    """Settle the weight of guidance in a configuration, which `guidance_scale` and `guidance.weight` both say.

    `guidance=default` is constant where more than a domain is asked for. Beside an interval, a tuned scheduler is the
    one that was tuned around the model's own weight, unless it says another.

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

    cfg.guidance_scale = _effective(guidance.weight if own else scale, model)
    kind = target_of(guidance)
    if cfg.guidance_scale == 0 and model.conditional and kind in (Constant, Interval, *TUNED_GUIDANCE):
        where = " where guidance is applied" if kind is Interval else ""
        log.warning("guidance_scale=0 draws without domain and label%s, whatever they are; 1 is no guidance", where)
    if own:
        guidance.weight = cfg.guidance_scale

    if kind is tuned_guidance and (own or scale is not None):
        log.info(
            "guidance=tuned takes guidance_scale=%g as the weight that was tuned around; guidance=constant draws with "
            "the weight itself",
            cfg.guidance_scale,
        )
    changes = kind not in (Constant, *TUNED_GUIDANCE)
    if changes and is_tuned(cfg.scheduler) and OmegaConf.is_interpolation(cfg.scheduler, "guidance_scale"):
        cfg.scheduler.guidance_scale = _effective(None, model)

    if kind is default_guidance:
        more_than_a_domain = guidance.path is None and any(
            given is not None for given in (scale, cfg.label, cfg.init_image)
        )
        of_one_weight = "guidance_scale" in cfg.scheduler and not is_tuned(cfg.scheduler)
        guidance.constant = guidance.constant or more_than_a_domain or own or of_one_weight


def keyed_by_guidance(cfg: DictConfig, guidance: float | Guidance) -> DictConfig:
    """The configuration by which calibrated steps are looked for: by all of the guidance, not by its weight alone."""
    return _keyed_by(_as_settings(guidance, cfg), cfg) if isinstance(guidance, Guidance) else cfg


def as_drawn(cfg: DictConfig, guidance: float | Guidance) -> DictConfig:
    """A copy of the configuration with the guidance that drew, where it was found among what was tuned."""
    tuned = target_of(cfg.guidance) in TUNED_GUIDANCE

    # Without references, which would lead to another weight, and without types, in which other guidance has no place.
    cfg = OmegaConf.create(literals(OmegaConf.to_container(cfg, resolve=True)))
    if tuned and isinstance(guidance, Interval):
        cfg = _keyed_by(guidance.weight, cfg)
        cfg.guidance = _as_settings(guidance, cfg)
    cfg.guidance_scale = cfg.guidance.get("weight")
    return cfg


def check_tuned(cfg: DictConfig) -> None:
    """Refuse a tuned scheduler where nothing was tuned, unless `check_fits_scheduler` has to refuse its guidance first.

    Raises:
        UserError: see `find_tuned`.
    """
    if is_tuned(cfg.scheduler) and target_of(cfg.guidance) in (Constant, *TUNED_GUIDANCE):
        try:
            find_tuned(**_tuned_as(cfg))
        except Unusable as error:
            raise advice_for_this_model(error) from error


def check_fits_scheduler(cfg: DictConfig, guidance: float | Guidance) -> None:
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


def warn_without_effect(model: PictureModel, guidance: float | Guidance) -> None:
    """Warn of guidance that decides nothing, see `in_effect`, unless only the model asked for it."""
    if guidance not in (in_effect(guidance, model.conditional), ModelFacts.of(model).guidance_scale):
        log.warning("%s", without_effect(guidance))


def effective_in(cfg: DictConfig, model: PictureModel, guidance: float | Guidance) -> float | Guidance:
    """The guidance that a run draws with, see `in_effect`; its configuration says it, too."""
    used = in_effect(guidance, model.conditional)
    warn_without_effect(model, guidance)
    for node, key in ((cfg, "guidance_scale"), (cfg.guidance, "weight")):
        if used != guidance and key in node:
            node[key] = used
    return used


def warn_of_strong_guidance(guidance: float | Guidance) -> None:
    """Warn of a weight far above those in use."""
    weight = getattr(guidance, "weight", guidance)
    if isinstance(weight, float | int) and weight > STRONG_GUIDANCE:
        log.warning("guidance %g is far above common weights, 1 to 15: expect saturated colours and noise", weight)


def warn_of_no_guidance(cfg: DictConfig, denoiser: GuidedModel, timesteps: np.ndarray) -> None:
    """Warn of guidance that changes on the way, where it holds at none of the timesteps."""
    guidance, nodes = denoiser.guidance_scale, nodes_at(denoiser.process, timesteps)
    if isinstance(guidance, Guidance) and all(denoiser.weight_at(node) == 1 for node in nodes):
        tuned = target_of(cfg.guidance) in TUNED_GUIDANCE
        advice = ", as tuned for the domain; guidance=constant guides every step" if tuned else ", and 1 is none"
        log.warning("no step is guided: guidance is %s%s", guidance.name, advice)


def _tuned_guidance(cfg: DictConfig) -> Any:
    """The guidance that a tuned scheduler was tuned with; None where nothing was tuned."""
    known = tuned_records(**_tuned_as(cfg))
    return checked_guidance(known[0][0].to_config().guidance or known[0][0].guidance_scale) if known else None


def _tuned_as(cfg: DictConfig) -> dict[str, Any]:
    """Where, and for what, a tuned scheduler was tuned."""
    return {name: cfg.scheduler[name] for name in ("path", "trained", "model", "domain", "guidance_scale")}


def _keyed_by(guidance: Any, cfg: DictConfig) -> DictConfig:
    """A copy of the configuration that looks for the calibrated steps of other guidance than `guidance_scale`."""
    cfg = cfg.copy()
    for node in (cfg.scheduler.get("calibration"), cfg.grid):
        if OmegaConf.is_dict(node) and node.get("guidance_scale") == cfg.guidance_scale:
            OmegaConf.update(node, "guidance_scale", guidance)
    return cfg


def _as_settings(guidance: Guidance, cfg: DictConfig) -> Any:
    """Settings that make the guidance of a run; where it was found in a file, that is not read again."""
    if isinstance(guidance, Interval):
        return {"_target_": f"{Interval.__module__}.{Interval.__qualname__}", **asdict(guidance)}
    return OmegaConf.to_container(cfg.guidance, resolve=True)


def _effective(given: float | None, model: PictureModel) -> float:
    """The guidance that a model draws with: its default where none was given."""
    scale = float(ModelFacts.of(model).guidance_scale) if given is None else given
    with as_user_error():
        check_guidance(scale)

    effective = effective_guidance(model, scale)
    if effective != scale:
        log.info("guidance_scale=%g is none, 1, for a model that reads the prompt", scale)
    return effective
