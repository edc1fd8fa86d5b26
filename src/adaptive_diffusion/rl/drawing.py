"""What an environment draws: a model with its guidance, in one domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.guidance import GuidedDenoiser
from ..diffusion.guided_model import GuidedModel
from ..diffusion.limits import Clipped, unlimited
from ..diffusion.schedule import SCHEDULE_ARGUMENTS, NoiseSchedule
from ..encoder.captions import plain_caption
from ..errors import UserError
from ..models.checkpoint import load_builtin_model
from ..sampling.batches import conditions
from ..sampling.converged import identity_of
from ..types import Denoiser, PictureModel

DEFAULT_DOMAIN = "landscapes"


@dataclass(frozen=True, eq=False)
class Drawing:
    """A model of any kind, ready to be sampled.

    Attributes:
        denoiser: The network with its guidance.
        shape: (H, W, C) of a state: a picture, or latents.
        settings: What the model decides of a scheduler: `prediction_type`, the arguments of its noise schedule, and
            `clip_sample` for pictures in pixel space, False for latents.
        condition: Class ids that every picture is drawn with; () for an unconditional model.
        domain: Name of what is drawn.
        domains: Names that a policy is to tell apart, among them `domain`; () if there is nothing to tell.
        identity: What decides the predictions, for the cache of converged solutions; "" for no cache.
        decode: Makes pictures of clean states, (N, H, W, C) -> (N, H', W', 3); None: they are pictures.

    Raises:
        ValueError: for a domain that is not among the domains.
    """

    denoiser: Denoiser
    shape: tuple[int, int, int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    condition: tuple[int, ...] = ()
    domain: str = ""
    domains: tuple[str, ...] = ()
    identity: str = ""
    decode: Callable[[mx.array], mx.array] | None = None

    def __post_init__(self) -> None:
        if self.domains and self.domain not in self.domains:
            raise ValueError(f"the model has no domain {self.domain!r}; it was trained on {', '.join(self.domains)}")

    @cached_property
    def model(self) -> GuidedModel:
        """The same for the sampling loop."""
        settings, network, scale = self.settings, self.denoiser, 1.0
        if isinstance(network, GuidedDenoiser):  # so that its passes are counted
            scale, network = network.guidance_scale, network.model

        bounded = settings.get("clip_sample", True)
        return GuidedModel(
            network,
            process=self.schedule,
            prediction_type=settings.get("prediction_type", "epsilon"),
            limit=Clipped(settings.get("clip_sample_range", 1.0)) if bounded else unlimited,
            guidance_scale=scale,
            condition=self.conditions(1),
            state_shape=self.shape,
            identity=self.identity,
            decode=self.decode,
            domain=self.domain,
            domains=self.domains,
        )

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule that the model was trained with."""
        return NoiseSchedule(**{key: self.settings[key] for key in SCHEDULE_ARGUMENTS if key in self.settings})

    @property
    def one_hot(self) -> np.ndarray:
        """(len(domains),) float32, 1 at the domain."""
        return np.array([float(name == self.domain) for name in self.domains], np.float32)

    def pictures(self, states: np.ndarray) -> np.ndarray:
        """(N, H', W', C) in [-1, 1] of (N, H, W, C) clean states."""
        return np.clip(states if self.decode is None else np.array(self.decode(mx.array(states))), -1, 1)

    def conditions(self, batch_size: int) -> mx.array | None:
        """(batch_size, K) class ids, or None."""
        return conditions(self.condition, batch_size)


def drawing_of(
    model: PictureModel | Drawing | None = None, domain: str | None = None, guidance_scale: float | None = None
) -> Drawing:
    """What to draw with a model.

    Args:
        model: A model that says how it was trained; None: the one that ships with the project. Any other network is
            described by a `Drawing`, which is returned as it is.
        domain: One of the model's domains; None: landscapes, or the first if there are none.
        guidance_scale: Weight of classifier-free guidance, >= 0; None: what the model recommends.

    Raises:
        ValueError: for a domain that the model does not know, a model that does not say what it predicts, or another
            kind of object.
    """
    if isinstance(model, Drawing):
        if domain is not None or guidance_scale is not None:
            raise ValueError("a Drawing already says domain and guidance; give them to it, not beside it")
        return model
    if model is None:
        model = load_builtin_model()
    if not hasattr(model, "state_shape"):
        raise ValueError(
            f"model must be a model of this project, or a Drawing that describes any other network, got "
            f"{type(model).__name__}"
        )
    known = model.metadata
    if known.get("prediction_type") is None:
        raise ValueError("the model does not say what it predicts; describe it by a Drawing with a prediction_type")
    domains = tuple(model.domains or ())
    if domain is not None and not model.conditional:
        raise ValueError(f"domain {domain!r} was given, but the model was trained without classes; leave it out")
    if domain is None:
        domain = DEFAULT_DOMAIN if not domains or DEFAULT_DOMAIN in domains else domains[0]
    bounded = bool(known.get("bounded", True))
    scale = float(known.get("guidance_scale", 1.0)) if guidance_scale is None else guidance_scale
    return Drawing(
        denoiser=GuidedDenoiser(model, scale),
        shape=model.state_shape,
        settings={
            "prediction_type": known["prediction_type"],
            "clip_sample": bounded,
            **known.get("noise_schedule", {}),
        },
        condition=model.condition(domain, None, plain_caption(domain, None)),
        domain=domain,
        domains=domains,
        identity=identity_of(model, scale),
        decode=None if bounded else model.decode,
    )


def drawing_in(model: PictureModel, domain: str, guidance_scale: float | None = None) -> Drawing:
    """What to draw with a model in a domain that a user asks for; without classes, the same in every domain.

    Args:
        model: A model that says how it was trained.
        domain: Name of the domain.
        guidance_scale: Weight of classifier-free guidance, >= 0; None: what the model recommends.

    Raises:
        UserError: if the model does not draw the domain, or does not say what it predicts.
    """
    if model.conditional and model.domains is not None and domain not in model.domains:
        raise UserError(
            f"the model does not draw {domain!r}; it draws {', '.join(model.domains)}: take one of these, or a model "
            f"that draws {domain!r}"
        )
    try:
        return drawing_of(model, domain if model.conditional else None, guidance_scale)
    except ValueError as error:
        raise UserError(str(error)) from error
