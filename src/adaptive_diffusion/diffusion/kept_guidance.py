"""What files keep of guidance, and how far two kinds of it are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from .guidance import Guidance, Interval, checked_guidance

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
