"""Attention of the U-Nets and the autoencoder: self-attention over pixels, and cross-attention to a text.

Attributes have the names of diffusers.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from .layers import group_norm

TRANSFORMER_EPS = 1e-6  # epsilon of the GroupNorm before transformer blocks; `norm_eps` of the U-Net does not apply


def multi_head_attention(q: mx.array, k: mx.array, v: mx.array, heads: int, mask: str | None = None) -> mx.array:
    """Softmax attention with `heads` heads of C / heads channels.

    Args:
        q: (B, N, C) queries.
        k: (B, M, C) keys.
        v: (B, M, C) values.
        heads: Number of heads.
        mask: "causal" hides later positions; None hides nothing.

    Returns:
        (B, N, C).
    """
    B, N, C = q.shape
    q, k, v = (a.reshape(B, -1, heads, C // heads).transpose(0, 2, 1, 3) for a in (q, k, v))  # (B, heads, N, C / heads)
    h = mx.fast.scaled_dot_product_attention(q, k, v, scale=(C // heads) ** -0.5, mask=mask)
    return h.transpose(0, 2, 1, 3).reshape(B, N, C)


class AttentionBlock(nn.Module):
    """Residual self-attention over the pixels of a (B, H, W, C) feature map, with biases.

    Old files call its layers query, key, value and proj_attn.

    Args:
        channels: C.
        heads: Number of heads.
        groups: Groups of the normalisation; None for no normalisation.
        eps: Epsilon of the normalisation.
        scale_factor: Divisor of the sum of both branches.
    """

    def __init__(self, channels: int, *, heads: int, groups: int | None, eps: float, scale_factor: float = 1.0):
        super().__init__()
        if groups is not None:
            self.group_norm = group_norm(groups, channels, eps)

        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = [nn.Linear(channels, channels)]
        self.heads = heads
        self.scale_factor = scale_factor

    def __call__(self, x: mx.array, context: mx.array | None = None) -> mx.array:
        B, H, W, C = x.shape
        h = (self.group_norm(x) if "group_norm" in self else x).reshape(B, H * W, C)
        h = multi_head_attention(self.to_q(h), self.to_k(h), self.to_v(h), self.heads)
        h = x + self.to_out[0](h).reshape(B, H, W, C)

        return h if self.scale_factor == 1 else h / self.scale_factor


class CrossAttention(nn.Module):
    """Attention of (B, N, channels) over a (B, M, context_channels) context, with a bias at the output only.

    Args:
        channels: Channels of the queries and of the result.
        context_channels: Channels of the context.
        heads: Number of heads.
        upcast: Compute scores and softmax in float32, also for weights of a shorter type.
    """

    def __init__(self, channels: int, context_channels: int, *, heads: int, upcast: bool = False):
        super().__init__()
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_channels, channels, bias=False)
        self.to_v = nn.Linear(context_channels, channels, bias=False)
        self.to_out = [nn.Linear(channels, channels)]
        self.heads = heads
        self.upcast = upcast

    def __call__(self, x: mx.array, context: mx.array) -> mx.array:
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        if self.upcast:
            q, k, v = (a.astype(mx.float32) for a in (q, k, v))
        return self.to_out[0](multi_head_attention(q, k, v, self.heads).astype(x.dtype))


class GEGLU(nn.Module):
    """value * gelu(gate), both from one linear projection, with the exact GELU (Shazeer, 2020)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.proj = nn.Linear(in_channels, 2 * out_channels)

    def __call__(self, x: mx.array) -> mx.array:
        value, gate = mx.split(self.proj(x), 2, axis=-1)
        return value * nn.gelu(gate)


class FeedForward(nn.Module):
    """Feed-forward layer with GEGLU, four times as wide inside."""

    def __init__(self, channels: int):
        super().__init__()
        # The reference has dropout in the middle; its place in the list counts in the names of the tensors.
        self.net = [GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)]

    def __call__(self, x: mx.array) -> mx.array:
        return self.net[2](self.net[0](x))


class BasicTransformerBlock(nn.Module):
    """Self-attention, attention over the context and a feed-forward layer, each after a LayerNorm and residual."""

    def __init__(self, channels: int, context_channels: int, *, heads: int, upcast: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = CrossAttention(channels, channels, heads=heads, upcast=upcast)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = CrossAttention(channels, context_channels, heads=heads, upcast=upcast)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def __call__(self, x: mx.array, context: mx.array) -> mx.array:
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer2DModel(nn.Module):
    """Residual transformer over the pixels of a (B, H, W, C) feature map that reads a (B, M, D) context.

    Args:
        channels: C.
        context_channels: D.
        heads: Number of heads.
        layers: Number of transformer blocks.
        groups: Groups of the normalisation in front.
        linear_projection: Whether the outer projections are linear layers instead of 1x1 convolutions.
        upcast: See `CrossAttention`.
    """

    def __init__(
        self,
        channels: int,
        context_channels: int,
        *,
        heads: int,
        layers: int,
        groups: int,
        linear_projection: bool,
        upcast: bool,
    ):
        super().__init__()
        self.norm = group_norm(groups, channels, TRANSFORMER_EPS)
        self.proj_in, self.proj_out = (
            nn.Linear(channels, channels) if linear_projection else nn.Conv2d(channels, channels, 1) for _ in range(2)
        )
        self.transformer_blocks = [
            BasicTransformerBlock(channels, context_channels, heads=heads, upcast=upcast) for _ in range(layers)
        ]

    def __call__(self, x: mx.array, context: mx.array) -> mx.array:
        B, H, W, C = x.shape
        h = self.proj_in(self.norm(x)).reshape(B, H * W, C)
        for block in self.transformer_blocks:
            h = block(h, context)

        return x + self.proj_out(h.reshape(B, H, W, C))
