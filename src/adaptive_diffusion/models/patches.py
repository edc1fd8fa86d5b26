"""Square patches of pixels: folded into the channels and back, and their means."""

from __future__ import annotations

import mlx.core as mx


def fold(x: mx.array, p: int) -> mx.array:
    """(B, H, W, C) -> (B, H/p, W/p, p*p*C): fold p x p patches into the channels."""
    B, H, W, C = x.shape
    return x.reshape(B, H // p, p, W // p, p, C).transpose(0, 1, 3, 2, 4, 5).reshape(B, H // p, W // p, p * p * C)


def unfold(x: mx.array, p: int) -> mx.array:
    """The inverse of `fold`."""
    B, H, W, C = x.shape
    return x.reshape(B, H, W, p, p, C // p**2).transpose(0, 1, 3, 2, 4, 5).reshape(B, H * p, W * p, C // p**2)


def patch_means(x: mx.array, p: int = 2) -> mx.array:
    """(B, H, W, C) -> (B, H/p, W/p, C): the means of p x p patches."""
    B, H, W, C = x.shape
    return x.reshape(B, H // p, p, W // p, p, C).mean(axis=(2, 4))
