"""Classifier-free guidance (Ho & Salimans, 2022)."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..baseline.checks import check_guidance
from ..types import Denoiser
from .compiled import compiled


class GuidedDenoiser:
    """null + scale * (conditional - null), both predictions from one doubled batch.

    The doubled batch is skipped where it would change nothing: at scale 1 and without a condition.

    Args:
        model: The network; a condition of all zeros is its null condition.
        guidance_scale: 1 is no guidance, 0 ignores the condition; >= 0.

    Raises:
        ValueError: for a scale that is negative, above 1000 or no number.
    """

    def __init__(self, model: Denoiser, guidance_scale: float = 1.0):
        self.model = model
        self.guidance_scale = check_guidance(guidance_scale)
        self._predict = compiled(model) if isinstance(model, nn.Module) else model

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        """(B, H, W, C) noisy pictures, (B,) timesteps, (B, ...) condition -> (B, H, W, C) guided prediction."""
        if condition is None or self.guidance_scale == 1:
            return self._predict(x, t, condition)
        both = mx.concatenate([condition, mx.zeros_like(condition)])
        conditional, null = mx.split(self._predict(mx.concatenate([x, x]), mx.concatenate([t, t]), both), 2)
        return null + self.guidance_scale * (conditional - null)
