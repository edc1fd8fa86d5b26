"""Classifier-free guidance (Ho & Salimans, 2022): how much it weighs at each noise level, and what names it."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Protocol, overload, runtime_checkable

from ..types import Denoiser, PictureModel
from .checks import check_guidance
from .node import Node

GUIDED = " guidance "  # between the identity of a model and its guidance


@runtime_checkable
class Guidance(Protocol):
    """How much the condition weighs at each noise level.

    Guidance with an attribute `weaker`, a network, leads away from the predictions of that instead of those of the
    null condition; see `Autoguidance`.
    """

    @property
    def name(self) -> str:
        """All that decides the weights, in a few words: what was measured with one name is never used for another."""
        ...

    def weight_at(self, node: Node) -> float:
        """The weight at a node, >= 0; 1 is no guidance; that and 0 cost one pass through the network instead of two."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same weight at every noise level.

    Args:
        weight: In [0, 1000]; 1 is none.

    Raises:
        ValueError: for a weight out of range.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_guidance(self.weight)

    @property
    def name(self) -> str:
        """See `Guidance`."""
        return name_of(self.weight)

    def weight_at(self, node: Node) -> float:
        """See `Guidance`."""
        return self.weight


@dataclass(frozen=True)
class Interval:
    """One weight within an interval of noise levels, and no guidance outside (Kynkäänniemi et al., 2024).

    The interval is one of log-SNR, log(alpha / sigma), so that it means the same with every noise schedule. Log-SNR
    grows while an image is drawn, with the linear schedule of a thousand timesteps from about -5 to about 5.

    Args:
        weight: In [0, 1000]; 1 is none.
        low: Log-SNR from which on there is guidance.
        high: Log-SNR up to which there is, > `low`.

    Raises:
        ValueError: for a value out of range.
    """

    weight: float
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        ends: tuple[Any, Any] = self.low, self.high
        if not all(isinstance(end, Real) for end in ends) or not ends[0] < ends[1]:
            given = " and ".join(f"{end:g}" if isinstance(end, Real) else repr(end) for end in ends)
            raise ValueError(f"the interval of guidance must have low < high, got {given}")

    @property
    def name(self) -> str:
        """See `Guidance`."""
        return f"{float(self.weight)!r} where log-SNR is {float(self.low)!r} to {float(self.high)!r}"

    def weight_at(self, node: Node) -> float:
        """See `Guidance`."""
        return self.at(node.log_snr)

    def at(self, log_snr: float) -> float:
        """The weight at a log-SNR."""
        return self.weight if self.low <= log_snr <= self.high else 1.0


def checked_guidance(given: Any) -> float | Guidance:
    """Guidance, if it is some: a number, or an object that is not constant; a constant one is given as its number.

    Raises:
        ValueError: for a number out of range, or another object.
    """
    if isinstance(given, Constant):
        return float(given.weight)
    if isinstance(given, Guidance) and not isinstance(given, type):
        return given
    return check_guidance(given)


def reads_text(model: Denoiser) -> bool:
    """Whether a model is told what to draw by a text, and not by classes of its own or not at all."""
    return getattr(model, "conditional", False) and getattr(model, "domains", ()) is None


@overload
def effective_guidance(model: Denoiser, guidance: float) -> float: ...
@overload
def effective_guidance(model: Denoiser, guidance: float | Guidance) -> float | Guidance: ...
def effective_guidance(model: Denoiser, guidance: float | Guidance) -> float | Guidance:
    """What a model is drawn with where some guidance was asked for.

    With a model that reads, a weight below 1 means no guidance, as in diffusers: few-step models ask for 0. With a
    model of classes it means less of them, down to 0, which draws without. Guidance of one's own is taken as it is.
    """
    if not reads_text(model):
        return guidance
    if isinstance(guidance, Constant | Interval):
        return replace(guidance, weight=max(guidance.weight, 1.0))
    return guidance if isinstance(guidance, Guidance) else max(guidance, 1.0)


def in_effect(guidance: float | Guidance, told: bool) -> float | Guidance:
    """The guidance that decides anything: 1, none, where a model is told nothing and no weaker network leads."""
    return guidance if told or weaker_in(guidance) is not None else 1.0


def without_effect(guidance: float | Guidance) -> str:
    """What is said of guidance that decides nothing, see `in_effect`."""
    return f"guidance {name_of(guidance)} has no effect: the model is told nothing that guidance could weigh"


def name_of(guidance: float | Guidance | str) -> str:
    """All that decides guidance, in a few words; a number stands for itself, and so does a name."""
    if isinstance(guidance, str):
        return guidance
    return guidance.name if isinstance(guidance, Guidance) else repr(float(guidance)).removesuffix(".0")


def identity_of(model: PictureModel | str, guidance: float | Guidance) -> str:
    """What decides a guided model's predictions: the model's identity, which may be given instead, and the guidance."""
    if isinstance(model, str):
        return f"{model}{GUIDED}{name_of(guidance)}"
    return f"{model.identity}{GUIDED}{name_of(effective_guidance(model, guidance))}"


def guidance_in(identity: str) -> float | None:
    """The constant guidance that an identity names, see `identity_of`; None for that of a model without."""
    with suppress(ValueError):
        return float(identity.rpartition(GUIDED)[2]) if GUIDED in identity else None
    return None


def weaker_in(guidance: float | Guidance) -> Denoiser | None:
    """The network whose prediction takes the place of the null condition; None: the null condition."""
    return getattr(guidance, "weaker", None)
