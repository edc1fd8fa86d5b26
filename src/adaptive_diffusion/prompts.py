"""From a prompt to what a class-conditional model can be asked for: a domain and perhaps a label."""

from __future__ import annotations

import logging

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from .errors import UserError
from .metrics.domain import Choice, DomainDetector
from .models.unet import SimpleUNet

log = logging.getLogger(__name__)

DOUBTFUL = 0.2  # confidence in the domain below which a warning is given


def follow_prompt(cfg: DictConfig, model: SimpleUNet) -> tuple[DictConfig, Choice | None]:
    """Choose domain and label by the prompt, if there is one; a domain given on the command line stands.

    Args:
        cfg: The configuration of a sampling run.
        model: The model that is to draw.

    Returns:
        The configuration with `domain` and `label` filled in, and the choice; or the same one and None.

    Raises:
        UserError: for a prompt without a word, beside a label, or for a model without classes.
    """
    if cfg.prompt is None:
        return cfg, None
    if cfg.label is not None:
        raise UserError(f"prompt and label={cfg.label} were both given, and a prompt chooses the label; leave one out")
    if not model.config.num_classes:
        raise UserError("a prompt was given, but the model was trained without classes; leave prompt out")
    labels = {domain: model.metadata.get("labels", {}).get(domain, []) for domain in model.metadata.get("domains", ())}
    try:
        choice = DomainDetector().choose(cfg.prompt, labels, cfg.domain.name if _domain_given() else None)
    except ValueError as error:
        raise UserError(f"prompt: {error}") from error
    if choice.domain_confidence < DOUBTFUL:
        log.warning("the prompt hardly asks for %s (%.0f %%)", choice.domain, 100 * choice.domain_confidence)
    cfg = cfg.copy()
    cfg.domain.name, cfg.label = choice.domain, choice.label
    cfg.domain.description = f"chosen for the prompt {cfg.prompt!r}"
    return cfg, choice


def _domain_given() -> bool:
    """Whether the command line says which domain."""
    if not HydraConfig.initialized():
        return False
    return any(str(override).lstrip("+").startswith("domain=") for override in HydraConfig.get().overrides.task)
