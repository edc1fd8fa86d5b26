"""Classifier-free guidance (Ho & Salimans, 2022): how much it weighs at each noise level, and what names it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Real
from typing import Any, Protocol, overload, runtime_checkable

import mlx.core as mx
import numpy as np

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


KeptGuidance = float | Interval | str  # one weight, weights in an interval, or the name of guidance of one's own


def kept_guidance(guidance: float | Guidance | str) -> KeptGuidance:
    """What a file keeps of guidance: its values where they are known, else its name.

    Raises:
        ValueError: for a number out of range, or an object that is no guidance.
    """
    if isinstance(guidance, str):
        return guidance
    known = checked_guidance(guidance)
    return known.name if isinstance(known, Guidance) and not isinstance(known, Interval) else known


def content_of(guidance: KeptGuidance) -> float | str | dict[str, float]:
    """What `guidance_from` makes kept guidance of, in JSON's types; bounds that are infinite are left out."""
    if not isinstance(guidance, Interval):
        return guidance
    bounds = {"low": guidance.low, "high": guidance.high}
    return {"weight": guidance.weight, **{name: bound for name, bound in bounds.items() if math.isfinite(bound)}}


def guidance_from(content: Any) -> KeptGuidance:
    """Kept guidance from its `content_of`, or as it is.

    Raises:
        TypeError, ValueError: if it is none.
    """
    return kept_guidance(Interval(**content) if isinstance(content, Mapping) else content)


def factor_between(one: KeptGuidance, other: KeptGuidance) -> float:
    """The largest factor, >= 1, between the weights of two kinds of guidance at any noise level; inf where unknown."""
    if one == other:
        return 1.0
    if isinstance(one, str) or isinstance(other, str):
        return math.inf

    # Between the bounds of both, the weights are constant.
    bounds = {bound for g in (one, other) if isinstance(g, Interval) for bound in (g.low, g.high)}
    inner = sorted(bound for bound in bounds if math.isfinite(bound)) or [0.0]
    between = [(low + high) / 2 for low, high in pairwise([inner[0] - 2, *inner, inner[-1] + 2])]
    pairs = [sorted(g.at(level) if isinstance(g, Interval) else g for g in (one, other)) for level in between]
    return max(1.0 if less == more else more / less if less else math.inf for less, more in pairs)


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


def guided(
    predict: Denoiser,
    x: mx.array,
    t: mx.array,
    condition: mx.array | None,
    weight: float | np.ndarray,
    weaker: Denoiser | None = None,
) -> tuple[mx.array, int]:
    """The guided prediction, and how many passes through a network all images took together.

    Args:
        predict: The network.
        x: (b, H, W, C) noisy images.
        t: (b,) timesteps.
        condition: (b, ...) conditions, or None.
        weight: Of guidance, for all images, or (b,) one for each.
        weaker: Predicts with the same condition what guidance leads away from; None: `predict` with the null condition.
    """
    if condition is not None and weaker is None and np.any(weight == 0):  # the prediction with the null condition alone
        none = mx.array(np.broadcast_to(weight == 0, len(x))).reshape(-1, *[1] * (condition.ndim - 1))
        condition, weight = mx.where(none, 0, condition), np.where(weight == 0, 1, weight)
    if (condition is None and weaker is None) or np.all(weight == 1):
        return predict(x, t, condition), len(x)
    if isinstance(weight, np.ndarray):
        return _guided_some(predict, x, t, condition, weight, weaker)

    strong, weak = _pair(predict, weaker, (x, t, condition), (x, t, condition))
    return weak + weight * (strong - weak), 2 * len(x)


def _guided_some(
    predict: Denoiser,
    x: mx.array,
    t: mx.array,
    condition: mx.array | None,
    weights: np.ndarray,
    weaker: Denoiser | None,
) -> tuple[mx.array, int]:
    """The same with weights that differ: only the images that are guided take two passes."""
    n, rows = len(x), np.flatnonzero(weights != 1)
    at = mx.array(rows)
    guided_ones = x[at], t[at], None if condition is None else condition[at]
    strong, weak = _pair(predict, weaker, (x, t, condition), guided_ones)

    weight = mx.array(weights[rows].reshape(-1, *[1] * (weak.ndim - 1)), dtype=weak.dtype)
    steered = weak + weight * (strong[at] - weak)

    source = np.arange(n)
    source[rows] = n + np.arange(len(rows))
    return mx.concatenate([strong, steered])[mx.array(source)], n + len(rows)


Batch = tuple[mx.array, mx.array, mx.array | None]  # noisy images, timesteps, conditions


def _pair(predict: Denoiser, weaker: Denoiser | None, images: Batch, some: Batch) -> tuple[mx.array, mx.array]:
    """The predictions of all images, and what guidance leads some of them away from.

    The null condition is predicted in one batch with the condition.
    """
    if weaker is not None:
        return predict(*images), weaker(*some)

    (x, t, condition), (x_some, t_some, condition_some) = images, some
    assert condition is not None  # without, only a weaker network guides
    assert condition_some is not None
    both = mx.concatenate([condition, mx.zeros_like(condition_some)])
    predicted = predict(mx.concatenate([x, x_some]), mx.concatenate([t, t_some]), both)
    return predicted[: len(x)], predicted[len(x) :]
