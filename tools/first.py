"""The shipped first predictions, one for each label, measured on the shipped model."""

from __future__ import annotations

import mlx.core as mx

from adaptive_diffusion.diffusion.conditions import Mixture, conditions_of
from adaptive_diffusion.diffusion.first_prediction import first_prediction
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.grids.first_file import SHIPPED, FirstPredictions, Ids, load_firsts, save_firsts
from adaptive_diffusion.models.checkpoint import BUILTIN_MODEL, load_model
from adaptive_diffusion.models.unet import SimpleUNet

NOISES = 16  # that each first prediction is measured from


def write_firsts() -> None:
    """Write `assets/first.safetensors`, which takes some 3,300 evaluations."""
    model = load_model(BUILTIN_MODEL)
    save_firsts(SHIPPED, measured(model, wanted(model)))


def wanted(model: SimpleUNet) -> list[Ids]:
    """Class ids of each domain without a label, of each label, and of the null condition."""
    found = []
    for domain in model.domains or ():
        mixed = conditions_of(model, domain, None, domain)
        found += [model.condition(domain, None, domain), *(mixed.ids if isinstance(mixed, Mixture) else ())]
    return [*found, (0,) * len(found[0])]


def measured(model: SimpleUNet, conditions: list[Ids]) -> FirstPredictions:
    """What a model predicts at the first timestep with each of some conditions, without guidance."""
    unguided, shape = GuidedModel.from_model(model, guidance_scale=1.0), model.state_shape
    found = {ids: first_prediction(unguided.with_condition(mx.array([ids])), shape, NOISES) for ids in conditions}
    return FirstPredictions(model.identity, found)


def stale_firsts() -> str | None:
    """Why the first predictions are not those of the shipped model, or None if they are."""
    model, found = load_model(BUILTIN_MODEL), load_firsts(SHIPPED)
    if found.model != model.identity:
        return "they were measured on another model"
    return None if found.known.keys() == set(wanted(model)) else "they are of other labels"
