"""Classifier-free guidance (Ho & Salimans, 2022)."""

from __future__ import annotations

from contextlib import suppress

import mlx.core as mx

from ..types import Denoiser, PictureModel


def reads_text(model: Denoiser) -> bool:
    """Whether a model is told what to draw by a text, and not by classes of its own or not at all."""
    return getattr(model, "conditional", False) and getattr(model, "domains", ()) is None


def effective_guidance(model: Denoiser, scale: float) -> float:
    """The weight that a model is drawn with where `scale` was asked for.

    With a model that reads, a weight below 1 means no guidance, as in diffusers: few-step models ask for 0. With a
    model of classes it means less of them, down to 0, which draws without.
    """
    return max(scale, 1.0) if reads_text(model) else scale


GUIDED = " guidance "  # between the identity of a model and its guidance


def identity_of(model: PictureModel | str, guidance_scale: float) -> str:
    """What decides a guided model's predictions: the model's identity, which may be given instead, and the guidance."""
    if isinstance(model, str):
        return f"{model}{GUIDED}{guidance_scale:g}"
    return f"{model.identity}{GUIDED}{effective_guidance(model, guidance_scale):g}"


def guidance_in(identity: str) -> float | None:
    """The guidance that an identity names, see `identity_of`; None for that of a model without."""
    with suppress(ValueError):
        return float(identity.rpartition(GUIDED)[2]) if GUIDED in identity else None
    return None


def guided(
    predict: Denoiser, x: mx.array, t: mx.array, condition: mx.array | None, guidance_scale: float
) -> tuple[mx.array, int]:
    """The guided prediction, and how many passes through the network each image took."""
    if condition is None or guidance_scale == 1:
        return predict(x, t, condition), 1

    both = mx.concatenate([condition, mx.zeros_like(condition)])
    doubled = predict(mx.concatenate([x, x]), mx.concatenate([t, t]), both)
    conditional, null = mx.split(doubled, 2)
    return null + guidance_scale * (conditional - null), 2
