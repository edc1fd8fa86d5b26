"""The shared layers of U-Nets and autoencoder: time embedding, residual block, resampling. All arrays are NHWC.

Attributes have the names of diffusers, so tensors load without a table of names.
"""

from __future__ import annotations

import functools
import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..convolution import Conv3x3
from ..patches import patch_means


def group_norm(groups: int, channels: int, eps: float) -> nn.GroupNorm:
    """GroupNorm with PyTorch's order of channels in groups; the default order of MLX is different."""
    return nn.GroupNorm(groups, channels, eps=eps, pytorch_compatible=True)


@functools.cache
def _frequencies(half: int, freq_shift: float) -> np.ndarray:
    """(half,) float32 frequencies with PyTorch's rounding; for t near 1000, the last bit matters."""
    exponent = np.float32(-math.log(10_000)) * np.arange(half, dtype=np.float32)
    return np.exp(exponent / np.float32(half - freq_shift))


def timestep_embedding(t: mx.array, dim: int, *, flip_sin_to_cos: bool, freq_shift: float) -> mx.array:
    """Sinusoidal features of numbers (Ho et al., 2020), float32 for every type of weights.

    Args:
        t: (B,) timesteps, real-valued.
        dim: Number of features; if it is odd, the last feature is 0.
        flip_sin_to_cos: Whether cosines come before sines.
        freq_shift: 0 or 1, subtracted from `dim // 2` in the divisor of the exponent.

    Returns:
        (B, dim) float32.
    """
    angles = t.astype(mx.float32)[:, None] * mx.array(_frequencies(dim // 2, freq_shift))[None]
    features = [mx.cos(angles), mx.sin(angles)] if flip_sin_to_cos else [mx.sin(angles), mx.cos(angles)]
    if dim % 2:
        features.append(mx.zeros((t.shape[0], 1)))

    return mx.concatenate(features, axis=-1)


class TimestepEmbedding(nn.Module):
    """Two linear layers with SiLU between them: (B, in_channels) features -> (B, channels)."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, channels)
        self.linear_2 = nn.Linear(channels, channels)

    def __call__(self, features: mx.array) -> mx.array:
        return self.linear_2(nn.silu(self.linear_1(features)))


def upsample_nearest(x: mx.array) -> mx.array:
    """(B, H, W, C) -> (B, 2H, 2W, C) by nearest neighbours."""
    B, H, W, C = x.shape
    return mx.broadcast_to(x[:, :, None, :, None], (B, H, 2, W, 2, C)).reshape(B, 2 * H, 2 * W, C)


class Downsample2D(nn.Module):
    """Convolution of stride 2: (B, 2H, 2W, C) -> (B, H, W, C).

    Args:
        channels: C.
        padding: 1 pads all four sides. 0 pads right and bottom only, as in the training of the DDPM models and the VAE.
    """

    def __init__(self, channels: int, padding: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def __call__(self, x: mx.array, temb: mx.array | None = None) -> mx.array:
        if self.conv.padding == (0, 0):
            x = mx.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])
        return self.conv(x)


class Upsample2D(nn.Module):
    """Nearest neighbour, then a convolution: (B, H, W, C) -> (B, 2H, 2W, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv3x3(channels, channels)

    def __call__(self, x: mx.array, temb: mx.array | None = None) -> mx.array:
        return self.conv(upsample_nearest(x))


class ResnetBlock2D(nn.Module):
    """The residual block of DDPM (Ho et al., 2020), and of ADM with `scale_shift` and `resample`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        temb_channels: Width of the time embedding; None without time embedding, in the autoencoder.
        groups: Groups of both normalisations.
        eps: Epsilon of both normalisations.
        scale_shift: Whether the time embedding scales and shifts the normalised features; else it is added to the
            features before the normalisation.
        scale_factor: Divisor of the sum of both branches.
        resample: "up" or "down" changes the resolution by a factor of 2 inside the block.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        temb_channels: int | None,
        groups: int,
        eps: float,
        scale_shift: bool = False,
        scale_factor: float = 1.0,
        resample: str | None = None,
    ):
        super().__init__()
        self.norm1 = group_norm(groups, in_channels, eps)
        self.conv1 = Conv3x3(in_channels, out_channels)

        if temb_channels is not None:
            self.time_emb_proj = nn.Linear(temb_channels, out_channels * (2 if scale_shift else 1))

        self.norm2 = group_norm(groups, out_channels, eps)
        self.conv2 = Conv3x3(out_channels, out_channels)

        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)

        self.scale_shift = scale_shift
        self.scale_factor = scale_factor
        self._resample = {None: None, "up": upsample_nearest, "down": patch_means}[resample]

    def __call__(self, x: mx.array, temb: mx.array | None = None) -> mx.array:
        """(B, H, W, in_channels) features and (B, temb_channels) SiLU of the embedding -> (B, H', W', out_channels)."""
        h = nn.silu(self.norm1(x))
        if self._resample is not None:
            x, h = self._resample(x), self._resample(h)

        h = self.conv1(h)
        if temb is None:
            h = self.norm2(h)
        elif self.scale_shift:
            scale, shift = mx.split(self.time_emb_proj(temb)[:, None, None], 2, axis=-1)  # (B, 1, 1, C) each
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + self.time_emb_proj(temb)[:, None, None])

        h = self.conv2(nn.silu(h))
        if "conv_shortcut" in self:
            x = self.conv_shortcut(x)

        return x + h if self.scale_factor == 1 else (x + h) / self.scale_factor
