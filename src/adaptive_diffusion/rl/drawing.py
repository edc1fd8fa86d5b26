"""What an environment draws: a guided model, in one domain."""

from __future__ import annotations

from ..diffusion.conditions import conditions_of
from ..diffusion.facts import ModelFacts
from ..diffusion.guidance import Guidance
from ..diffusion.guided_model import GuidedModel
from ..encoder.captions import plain_caption
from ..errors import Unusable
from ..models.checkpoint import load_builtin_model
from ..types import PictureModel, is_picture_model

DEFAULT_DOMAIN = "landscapes"


def drawing_of(
    model: PictureModel | GuidedModel | None = None,
    domain: str | None = None,
    guidance_scale: float | Guidance | None = None,
) -> GuidedModel:
    """What to draw with a model.

    Args:
        model: A model that says how it was trained; None: the one that ships with the project. Any other network is
            described by a `GuidedModel`, which is returned as it is.
        domain: One of the model's domains; None: landscapes, or the first if there are none.
        guidance_scale: Weight of classifier-free guidance, >= 0, or `Guidance`; None: what the model recommends.

    Raises:
        ValueError: for a domain that the model does not know, a model that does not say what it predicts, or another
            kind of object.
    """
    if isinstance(model, GuidedModel):
        if domain is not None or guidance_scale is not None:
            raise ValueError("a GuidedModel already says domain and guidance; give them to it, not beside it")
        return model

    if model is None:
        model = load_builtin_model()
    if not is_picture_model(model):
        raise ValueError(
            f"model must be a model of this project, or a GuidedModel that describes any other network, got "
            f"{type(model).__name__}"
        )
    if ModelFacts.of(model).prediction_type is None:
        raise ValueError("the model does not say what it predicts; describe it by a GuidedModel with a prediction_type")

    domains = tuple(model.domains or ())
    if domain is not None and not model.conditional:
        raise ValueError(f"domain {domain!r} was given, but the model was trained without classes; leave it out")

    if domain is None:
        domain = DEFAULT_DOMAIN if not domains or DEFAULT_DOMAIN in domains else domains[0]
    conditions = conditions_of(model, domain, None, plain_caption(domain, None))
    return GuidedModel.from_model(model, conditions, guidance_scale, domain=domain)


def drawing_in(model: PictureModel, domain: str, guidance_scale: float | Guidance | None = None) -> GuidedModel:
    """What to draw with a model in a domain that a user asks for; without classes, the same in every domain.

    Args:
        model: A model that says how it was trained.
        domain: Name of the domain.
        guidance_scale: Weight of classifier-free guidance, >= 0, or `Guidance`; None: what the model recommends.

    Raises:
        Unusable: if the model does not draw the domain, or does not say what it predicts.
    """
    if model.conditional and model.domains is not None and domain not in model.domains:
        raise Unusable(
            f"the model does not draw {domain!r}; it draws {', '.join(model.domains)}: take one of these, or a model "
            f"that draws {domain!r}"
        )

    try:
        return drawing_of(model, domain if model.conditional else None, guidance_scale)
    except ValueError as error:
        raise Unusable(str(error)) from error
