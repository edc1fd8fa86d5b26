"""From a prompt to what a model can be asked for: a domain and perhaps a label."""

from __future__ import annotations

import logging

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ..diffusion.guidance import reads_text
from ..encoder.domain import Choice
from ..encoder.prompts import check_no_label, choice_for
from ..errors import UserError
from ..tracking.provenance import choices
from ..types import UNKNOWN, PictureModel
from .settings_text import given, literal

log = logging.getLogger(__name__)

DOUBTFUL = 0.3  # confidence in the domain below which a warning is given


def follow_prompt(cfg: DictConfig, model: PictureModel) -> tuple[DictConfig, Choice | None]:
    """Choose domain and label by the prompt, if there is one; a domain given on the command line stands.

    Without a prompt, the domain is that of a model which can draw no other, or `UNKNOWN` if nobody says what it is.

    Args:
        cfg: The configuration of a sampling run.
        model: The model that is to draw.

    Returns:
        The configuration with `domain` and `label` filled in, and the choice; or the same one and None.

    Raises:
        UserError: for an empty prompt or one without a word, beside a label, or for a model that takes none.
    """
    if cfg.prompt is None:
        return _settle(cfg, model), None

    check_no_label(cfg.label)
    if not model.conditional:
        raise UserError(
            "a prompt was given, but the model was trained without classes and reads no text; leave prompt out"
        )

    choice = choice_for(cfg.prompt, model, cfg.domain.name if _domain_given() else None)
    if not choice.understood and not reads_text(model):
        log.warning("no word of the prompt is known, so that it decides nothing: %s is drawn", choice.domain)
    elif choice.domain_confidence is None:
        if choice.label is None and not reads_text(model):
            log.warning("the prompt names no label of %s, so that it decides nothing", choice.domain)
    elif choice.domain_confidence < DOUBTFUL:
        log.warning("the prompt hardly asks for %s (%.0f %%)", choice.domain, 100 * choice.domain_confidence)

    cfg = cfg.copy()
    cfg.domain.name, cfg.label = choice.domain, choice.label
    cfg.domain.description = literal(f"chosen for the prompt {cfg.prompt!r}")
    return cfg, choice


def _settle(cfg: DictConfig, model: PictureModel) -> DictConfig:
    """The configuration with the domain of a model that draws no other, unless the command line says it."""
    known = list(model.domains or ())
    if _domain_given() or (model.conditional and len(known) != 1):
        return cfg

    cfg = cfg.copy()
    cfg.domain.name = name = known[0] if len(known) == 1 else UNKNOWN
    cfg.domain.description = "nobody said what the model draws" if name == UNKNOWN else "what the model draws"
    return cfg


def _domain_given() -> bool:
    """Whether the user says what is drawn: by a domain's file, by its name alone, or by the `config.yaml` of a run."""
    by_file = HydraConfig.initialized() and "domain" not in choices() and not given("prompt")
    return given("domain") or given("domain.name") or by_file
