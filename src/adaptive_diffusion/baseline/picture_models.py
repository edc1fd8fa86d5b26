"""What `DiffusionPipeline` needs of a model: any denoiser as a `PictureModel`, and what it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_choice, check_state_shape
from ..diffusion.conditions import NO_LABEL, Mixture, conditions_of
from ..diffusion.facts import ModelFacts
from ..encoder.captions import plain_caption
from ..encoder.prompts import check_no_label, choice_for
from ..errors import Unusable
from ..spelling import closest
from ..types import Denoiser, PictureModel

log = logging.getLogger(__name__)

_FACTS = [fact.name for fact in fields(ModelFacts)]


class PlainModel:
    """Any denoiser as a `PictureModel`, from as little as a function and a shape.

    Args:
        denoiser: The network, (x, t, condition) -> prediction.
        state_shape: (H, W, C) of the images.
        identity: A name that tells it from others, e.g. a hash of its weights; "": calibrations are not kept for it.
        **metadata: What is known of it, see `ModelFacts`, e.g. prediction_type="v_prediction".

    Raises:
        ValueError: for a shape that is none, an identity that is no text, an unknown name, or a value out of range.
    """

    conditional = False
    domains: Mapping[str, Sequence[str]] | None = None

    def __init__(self, denoiser: Denoiser, state_shape: tuple[int, int, int], identity: str = "", **metadata: Any):
        if not isinstance(identity, str):
            raise ValueError(f"identity must be a text, got {identity!r:.80}; leave it out if there is none")
        for name in metadata:
            check_choice("a fact of a PlainModel", name, _FACTS)

        self._denoiser = denoiser
        self.state_shape = check_state_shape(state_shape)
        self.picture_size = self.state_shape[:2]
        self.identity = identity
        self.metadata: Mapping[str, Any] = metadata
        ModelFacts.of(self)  # it refuses values out of range

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        """See `Denoiser`."""
        return self._denoiser(x, t, condition)

    def condition(self, domain: str, label: str | None, caption: str) -> tuple[int, ...]:
        """(): what it can be told is not known."""
        return ()

    def encode(self, pictures: mx.array) -> mx.array:
        """States are images."""
        return pictures

    def decode(self, x0: mx.array) -> mx.array:
        """States are images."""
        return x0


def asked_for(
    model: PictureModel,
    batch_size: int,
    seed: int,
    prompt: str | Sequence[str] | None = None,
    domain: str | None = None,
    label: str | None = None,
) -> tuple[mx.array | None, str | None, bool]:
    """What a batch is to show, as `sample.py` understands it.

    Args:
        model: The model that draws.
        batch_size: B, images.
        seed: Of the images, >= 0; it decides their labels, where these are open.
        prompt: One text for all images, or one for each. A model that reads no text is asked for the domain and the
            label that the text names.
        domain: A domain of the model; beside a prompt it stands.
        label: A label of the domain, or of the only domain that has it; see `conditions_of`, also for none.

    Returns:
        (B, K) class ids, or None where nothing was asked for; the domain, or None where nothing was asked for or the
        prompts' domains differ; whether labels are drawn by share.

    Raises:
        Unusable: if the model cannot be told what to draw, or does not draw that; for a prompt beside a label, an
            empty text, or not as many texts as images.
    """
    if prompt is None and domain is None and label is None:
        return None, None, False
    for name, given in (("domain", domain), ("label", label)):
        if given is not None and not isinstance(given, str):
            raise Unusable(f"{name} must be a text, the name of a {name}, got {given!r:.80}")
    if not model.conditional:
        given, why = ("a prompt", "reads no text") if prompt is not None else ("a domain or label", "has no classes")
        raise Unusable(f"{given} was given, but the model {why}; leave it out, or give a condition")

    if prompt is None:
        domain = _home(model, label) if domain is None else domain
        caption = plain_caption(domain, None if label == NO_LABEL else label)
        conditions = conditions_of(model, domain, label, caption)
        return conditions.rows(seed, range(batch_size)), domain, isinstance(conditions, Mixture)

    check_no_label(label)
    texts: list[Any] = list(prompt) if isinstance(prompt, list | tuple) else [prompt] * batch_size
    if not all(isinstance(text, str) for text in texts):
        raise Unusable(f"prompt must be a text, or a list with a text for each image, got {prompt!r:.80}")
    if len(texts) != batch_size:
        raise Unusable(f"give one prompt, or as many as images: got {len(texts)} for {batch_size}")
    if model.domains is None:  # it reads
        return mx.array([model.condition(domain or "general", None, text) for text in texts]), domain, False

    choices = {text: choice_for(text, model, domain) for text in dict.fromkeys(texts)}
    for text, choice in choices.items():
        log.info("%r: domain %s, %s", text[:60], choice.domain, choice.label or "no label")
        if not choice.understood:
            log.warning("no word of %r is known, so that it decides nothing", text[:60])
    asked = {text: conditions_of(model, choice.domain, choice.label, text) for text, choice in choices.items()}
    rows = [asked[text].rows(seed, [image]) for image, text in enumerate(texts)]
    domains = {choice.domain for choice in choices.values()}
    by_share = any(isinstance(conditions, Mixture) for conditions in asked.values())
    condition = mx.concatenate([row for row in rows if row is not None])
    return condition, domains.pop() if len(domains) == 1 else None, by_share


def conditioned_by(
    model: PictureModel, batch_size: int, condition: mx.array, asked: Mapping[str, Any]
) -> tuple[mx.array, str | None]:
    """The conditions that a batch was given, checked, and their domain; None where that is unknown.

    Args:
        model: The model that draws.
        batch_size: B, images.
        condition: (B, ...) conditions, or (1, ...) for all images.
        asked: What else says what to draw, by name; it must be None.

    Raises:
        ValueError: for both, or another number of conditions.
    """
    if beside := [name for name, value in asked.items() if value is not None]:
        raise ValueError(
            f"{' and '.join(beside)} and condition were both given, which say the same; leave one of them out"
        )

    condition = mx.array(condition)
    if condition.shape[:1] not in ((1,), (batch_size,)):
        raise ValueError(
            f"condition must have a row for each of {batch_size} images, or one for all, got "
            f"the shape {condition.shape}"
        )
    return condition, _domain_of(model, condition)


def _domain_of(model: PictureModel, condition: mx.array) -> str | None:
    """The domain of a model that all of a batch's class ids, (B, K), belong to; None where that is unknown."""
    if not model.domains or condition.ndim != 2 or not condition.size:
        return None
    first = set(np.array(condition)[:, 0].tolist())
    return next((domain for domain in model.domains if first == set(model.condition(domain, None, domain)[:1])), None)


def _home(model: PictureModel, label: str | None) -> str:
    """The domain of a label that was given alone."""
    domains = model.domains
    if domains is None:
        raise Unusable(
            f"label={label} was given without a domain, and the model reads; give domain=... as well, or a prompt"
        )
    if not domains:
        raise Unusable(f"label={label} was given, but the model names none of its classes; give their ids as condition")
    if label == NO_LABEL:
        if len(domains) == 1:
            return next(iter(domains))
        raise Unusable(
            f"label={NO_LABEL} draws a domain without a label, and no domain was given; give domain=... as well"
        )

    homes = [domain for domain, labels in domains.items() if label in labels]
    if len(homes) > 1:
        have = f"domains {', '.join(homes)} have it"
        raise Unusable(f"label={label} was given without a domain, and {have}; give domain=... as well")
    if not homes:
        near = closest(str(label), [name for labels in domains.values() for name in labels])
        meant = f"; did you mean {near!r}?" if near else f"; it draws the domains {', '.join(domains)}"
        raise Unusable(f"no domain of the model has the label {label!r}{meant}")
    return homes[0]
