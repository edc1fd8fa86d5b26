"""Autoguidance (Karras et al., 2024, "Guiding a Diffusion Model with a Bad Version of Itself")."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import mlx.nn as nn

from ..errors import Unusable
from ..types import Denoiser, PictureModel, is_picture_model
from .checks import LARGEST_GUIDANCE, check_number
from .compiled import compiled
from .facts import ModelFacts
from .guidance import Interval
from .node import Node


@dataclass(frozen=True)
class Autoguidance:
    """Guidance by a weaker model: weak + weight * (strong - weak), where both have the same condition.

    The weaker model, a smaller network or an earlier checkpoint, makes the same mistakes as the stronger one, only
    larger, and guidance leads away from them. It takes the place of the null condition, so that models without a
    condition are guided too. Where there is guidance, an evaluation takes a pass through each of the two networks.

    Args:
        weak: The weaker model. It has the prediction type, noise process, state shape and classes of the model that
            draws, which `GuidedModel` checks.
        weight: In [1, 1000]; 1 is none.
        low: Log-SNR from which on there is guidance, see `Interval`.
        high: Log-SNR up to which there is, > `low`.

    Attributes:
        weaker: Predicts instead of the null condition.

    Raises:
        ValueError: for a value out of range.
        Unusable: for a weaker model that does not say how it was trained, or without an identity, by which calibrations
            know it.
    """

    weak: PictureModel = field(compare=False, repr=False)
    weight: float = 1.5
    low: float = -math.inf
    high: float = math.inf
    weaker: Denoiser = field(init=False, compare=False, repr=False)
    _interval: Interval = field(init=False, repr=False)
    _model: str = field(init=False)

    def __post_init__(self) -> None:
        check_number("guidance_scale with a weaker model", self.weight, 1, LARGEST_GUIDANCE)
        if not is_picture_model(self.weak):
            raise Unusable(
                f"the weaker model of guidance must say how it was trained, as a PlainModel does, got {self.weak!r:.80}"
            )
        if not self.weak.identity:
            raise Unusable("the weaker model has no identity, by which what was measured with it is known")

        object.__setattr__(self, "weaker", compiled(self.weak) if isinstance(self.weak, nn.Module) else self.weak)
        object.__setattr__(self, "_interval", Interval(self.weight, self.low, self.high))
        object.__setattr__(self, "_model", re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", self.weak.identity))

    @property
    def name(self) -> str:
        """See `Guidance`; it holds the identity of the weaker model, of a checkpoint 12 digits of its content hash."""
        everywhere = math.isinf(self.low) and math.isinf(self.high)
        weight = repr(float(self.weight)) if everywhere else self._interval.name
        return f"{weight} by the weaker model {self._model}"

    def weight_at(self, node: Node) -> float:
        """See `Guidance`."""
        return self._interval.weight_at(node)

    def check_fits(self, strong: Denoiser, **facts: Any) -> None:
        """Refuse a weaker model whose predictions do not mean the same as those of the model that draws.

        Args:
            strong: The network that draws; its classes are compared where it says them.
            **facts: What `_facts` says of the weaker model, of the network that draws; None where nobody knows it.

        Raises:
            Unusable: naming the first fact that differs.
        """
        known = _facts(self.weak)
        for name, own in facts.items():
            if own is not None and known[name] != own:
                raise Unusable(
                    f"the weaker model of guidance has another {name.replace('_', ' ')} than the model that draws: "
                    f"{known[name]}, and not {own}"
                )
        if is_picture_model(strong) and (_classes(strong) is None or _classes(self.weak) != _classes(strong)):
            raise Unusable(
                "the weaker model of guidance was trained with other domains or labels than the model that draws, or "
                "one of them reads a prompt; take a smaller network or an earlier checkpoint of the same training data"
            )


def _facts(model: PictureModel) -> dict[str, Any]:
    known = ModelFacts.of(model)
    return {
        "prediction_type": known.prediction_type,
        "noise_schedule": known.process.config,
        "state_shape": tuple(model.state_shape),
    }


def _classes(model: PictureModel) -> dict[str, tuple[str, ...]] | None:
    """Domains with their labels; {} without a condition; None where the model reads."""
    if not model.conditional:
        return {}
    return None if model.domains is None else {domain: tuple(labels) for domain, labels in model.domains.items()}
