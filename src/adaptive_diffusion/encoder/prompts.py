"""The prompt of a user: the domain and the label that a model draws for it."""

from __future__ import annotations

import logging

from ..errors import Unusable
from ..types import PictureModel
from .domain import Choice, DomainDetector

log = logging.getLogger(__name__)


def choice_for(prompt: str, model: PictureModel, domain: str | None) -> Choice:
    """Domain and label for a prompt, among those of the model; any domain, and no label, for a model that reads.

    Raises:
        Unusable: for an empty prompt, or a prompt without a word for a model that does not read.
    """
    if not prompt.strip():
        raise Unusable("prompt: it is empty; say what to draw, e.g. prompt='a butterfly', or leave it out")

    detector = DomainDetector()
    reads = model.domains is None
    domains = dict.fromkeys(detector.encoder.config.domains, ()) if model.domains is None else model.domains
    try:
        return detector.choose(prompt, domains, domain)
    except ValueError as error:
        if not reads:
            raise Unusable(f"prompt: {error}") from error
        log.warning("the domain of the prompt cannot be told (%s)", error)
        return Choice(domain or "general", None, None, 0.0, understood=False)


def check_no_label(label: str | None) -> None:
    """Refuse a label that was given beside a prompt.

    Raises:
        Unusable: if it is not None.
    """
    if label is not None:
        raise Unusable(f"prompt and label={label} were both given, and a prompt chooses the label; leave one out")
