"""The network of the encoder: an image tower and a caption tower with one shared space, and two domain heads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from ..diffusion.checks import check_widths
from ..models.convolution import Conv3x3
from ..models.patches import fold

SMALLEST = 6  # side of an image, pixels: 3x3 are left for its sharpness at half resolution
_UNIT_EPS = 1e-6


@dataclass(frozen=True)
class EncoderConfig:
    """The architecture of an `EncoderNetwork`.

    Attributes:
        domains: Names of the domains, in the order of the domain head.
        image_size: Side of the square input images, pixels.
        widths: Channels of the stages at 1/2, 1/4, ... of the resolution.
        dimension: Width of the features and of the shared space.
        word_dimension: Width of the word vectors.
    """

    domains: tuple[str, ...]
    image_size: int = 32
    widths: tuple[int, ...] = (48, 96, 192)
    dimension: int = 64
    word_dimension: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "domains", tuple(self.domains))
        object.__setattr__(self, "widths", check_widths(self.widths))
        if self.image_size % 2 ** len(self.widths) or self.image_size < SMALLEST:
            raise ValueError(
                f"image_size must be a multiple of {2 ** len(self.widths)} for {len(self.widths)} widths, and at least "
                f"{SMALLEST}, got {self.image_size}"
            )


class _Block(nn.Module):
    """Residual block: x + conv(relu(conv(norm(x))))."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.conv1 = Conv3x3(width, width)
        self.conv2 = Conv3x3(width, width)

    def __call__(self, x: mx.array) -> mx.array:
        return x + self.conv2(nn.relu(self.conv1(self.norm(x))))


class EncoderNetwork(nn.Module):
    """The two towers and their heads."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self._config = config
        incoming = (3, *config.widths[:-1])
        pairs = zip(incoming, config.widths, strict=True)

        # Each stage moves 2x2 pixels into the channels, then mixes them.
        self.shrink = [
            nn.Conv2d(4 * before, width, 3 if before == 3 else 1, padding=before == 3) for before, width in pairs
        ]
        self.blocks = [_Block(width) for width in config.widths]

        self.to_features = nn.Linear(2 * config.widths[-1], config.dimension)
        self.to_shared = nn.Linear(config.dimension, config.dimension)
        self.words_to_shared = nn.Linear(config.word_dimension, config.dimension)

        self.domain = nn.Linear(config.dimension, len(config.domains))
        self.prompt_domain = nn.Linear(config.word_dimension, len(config.domains))  # see `prompt_head`
        self.log_scale = mx.array(math.log(10.0))

    def stages(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) in [-1, 1] -> feature maps at 1/2, 1/4, ... of the resolution."""
        maps = []
        for shrink, block in zip(self.shrink, self.blocks, strict=True):
            x = block(nn.relu(shrink(fold(x, 2))))
            maps.append(x)

        return maps

    def features(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) in [-1, 1] -> (B, dimension): a linear map of the mean and the spread of the coarsest map."""
        last = nn.relu(self.stages(x)[-1])  # (B, h, w, C)
        mean = last.mean(axis=(1, 2))
        spread = mx.sqrt(mx.square(last - mean[:, None, None]).mean(axis=(1, 2)) + 1e-6)
        return self.to_features(mx.concatenate([mean, spread], axis=-1))

    def scale_features(self, factor: float) -> None:
        """Make the features longer by a factor; what they embed to stays, since `to_shared` divides by it."""
        self.to_features.weight, self.to_features.bias = (
            factor * self.to_features.weight,
            factor * self.to_features.bias,
        )
        self.to_shared.weight = self.to_shared.weight / factor

    def embed_features(self, features: mx.array) -> mx.array:
        """(B, dimension) features -> unit vectors of the shared space."""
        return unit(self.to_shared(features))

    def embed_words(self, vectors: mx.array) -> mx.array:
        """(B, word_dimension) mean word vectors -> unit vectors of the shared space."""
        return unit(self.words_to_shared(vectors))


def unit(x: mx.array) -> mx.array:
    """Vectors along the last axis, scaled to length 1."""
    return x * mx.rsqrt(mx.square(x).sum(axis=-1, keepdims=True) + _UNIT_EPS)
