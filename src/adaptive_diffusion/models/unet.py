"""SimpleUNet, the small class-conditional U-Net of the shipped model.

It follows DDPM (Ho et al., 2020) and ADM (Dhariwal & Nichol, 2021), and is small enough to be trained on a CPU: a
patchify stem, one normalisation per block, ReLU, one merged skip connection per level. All arrays are NHWC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..diffusion.checks import check_class_ids, check_count, check_counts, check_widths
from ..io.network_file import content_hash, flat_parameters
from .classes import class_ids
from .convolution import Conv3x3
from .patches import fold, unfold

MOST_BLOCKS = 1000  # largest number in a network; without it, a small file could ask for any number


@dataclass(frozen=True)
class UNetConfig:
    """The architecture of a `SimpleUNet`.

    Attributes:
        image_size: Side of the square image, pixels; a multiple of `patch_size * 2 ** (len(widths) - 1)`.
        in_channels: Channels of an image; training reads 1 (grey), 3 (RGB) or 4 (RGBA).
        patch_size: Side of the pixel patches that the stem folds into channels, pixels.
        widths: Channels per resolution level, from fine to coarse; each level halves the side.
        blocks: Residual blocks per level on the way down, and again on the way up.
        attention_levels: Levels (0 = finest) whose blocks are followed by self-attention.
        head_dim: Channels per attention head.
        embedding_dim: Width of the time and class embedding.
        num_classes: Size of each class vocabulary without its null class, e.g. `(4, 201)` for domain and label.
    """

    image_size: int = 32
    in_channels: int = 3
    patch_size: int = 2
    widths: tuple[int, ...] = (64, 128, 256)
    blocks: tuple[int, ...] = (1, 2, 2)
    attention_levels: tuple[int, ...] = (2,)
    head_dim: int = 64
    embedding_dim: int = 256
    num_classes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", check_widths(self.widths))
        for name, low in (("blocks", 1), ("attention_levels", 0), ("num_classes", 0)):
            object.__setattr__(self, name, check_counts(name, getattr(self, name), low))

        for name in ("image_size", "in_channels", "patch_size", "head_dim", "embedding_dim"):
            check_count(name, getattr(self, name), 1)

        if len(self.blocks) != len(self.widths):
            raise ValueError(f"blocks must give one count for each of {len(self.widths)} levels, got {self.blocks}")
        if sum(self.blocks) > MOST_BLOCKS:
            raise ValueError(f"blocks must add up to at most {MOST_BLOCKS}, got {sum(self.blocks)}")

        multiple = self.patch_size * 2 ** (len(self.widths) - 1)
        if self.image_size < multiple or self.image_size % multiple:
            raise ValueError(
                f"image_size must be a multiple of {multiple} (patch_size {self.patch_size} and "
                f"{len(self.widths)} levels), got {self.image_size}"
            )

        bad = [level for level in self.attention_levels if level >= len(self.widths)]
        if bad:
            raise ValueError(f"attention_levels must lie in 0..{len(self.widths) - 1}, got {bad}")

        odd = [self.widths[level] for level in self.attention_levels if self.widths[level] % self.head_dim]
        if odd:
            raise ValueError(f"head_dim {self.head_dim} must divide the widths with attention, got {odd}")


LONGEST_PERIOD = 10_000.0  # of the features of a timestep


def timestep_embedding(t: mx.array, dim: int) -> mx.array:
    """Sinusoidal features of the training timestep (Vaswani et al., 2017; Ho et al., 2020).

    Args:
        t: (B,) timesteps in [0, T - 1], real-valued.
        dim: Number of features, even.

    Returns:
        (B, dim) float32: cosines, then sines.
    """
    half = dim // 2
    frequencies = mx.exp(-math.log(LONGEST_PERIOD) * mx.arange(half, dtype=mx.float32) / half)
    angles = t.astype(mx.float32)[:, None] * frequencies[None]
    return mx.concatenate([mx.cos(angles), mx.sin(angles)], axis=-1)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(modulate(norm(x)))))); the embedding scales and shifts in `modulate`."""

    def __init__(self, width: int, embedding_dim: int):
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.modulation = nn.Linear(embedding_dim, 2 * width)
        self.conv1 = Conv3x3(width, width)
        self.conv2 = Conv3x3(width, width)

        # The block is the identity at first.
        self.modulation.weight = mx.zeros_like(self.modulation.weight)
        self.conv2.weight = mx.zeros_like(self.conv2.weight)

    def __call__(self, x: mx.array, embedding: mx.array) -> mx.array:
        scale, shift = mx.split(self.modulation(embedding)[:, None, None], 2, axis=-1)  # (B, 1, 1, C) each
        h = nn.relu(self.norm(x) * (1 + scale) + shift)
        return x + self.conv2(nn.relu(self.conv1(h)))


class SelfAttention(nn.Module):
    """Residual multi-head self-attention over the pixels of a (B, H, W, C) feature map."""

    def __init__(self, width: int, head_dim: int):
        super().__init__()
        self.num_heads = width // head_dim
        self.norm = nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.out.weight = mx.zeros_like(self.out.weight)

    def __call__(self, x: mx.array) -> mx.array:
        B, H, W, C = x.shape
        qkv = self.qkv(self.norm(x)).reshape(B, H * W, 3, self.num_heads, C // self.num_heads)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # (B, heads, HW, head_dim) each
        h = mx.fast.scaled_dot_product_attention(q, k, v, scale=(C // self.num_heads) ** -0.5)
        return x + self.out(h.transpose(0, 2, 1, 3).reshape(B, H, W, C))


class Stage(nn.Module):
    """The residual blocks of one level, each followed by attention on levels with attention."""

    def __init__(self, config: UNetConfig, level: int):
        super().__init__()
        width, attention = config.widths[level], level in config.attention_levels
        self.blocks = [ResidualBlock(width, config.embedding_dim) for _ in range(config.blocks[level])]
        self.attention = [SelfAttention(width, config.head_dim) for _ in self.blocks] if attention else []

    def __call__(self, x: mx.array, embedding: mx.array) -> mx.array:
        for i, block in enumerate(self.blocks):
            x = block(x, embedding)
            if self.attention:
                x = self.attention[i](x)

        return x


class SimpleUNet(nn.Module):
    """Predicts eps, v or x0, as trained, from a noisy image, its timestep and its classes.

    Downsampling folds 2x2 pixels into the channels and mixes them linearly; upsampling does the reverse.
    """

    def __init__(self, config: UNetConfig | None = None):
        super().__init__()
        self._config = config = config or UNetConfig()
        self._metadata: dict[str, Any] = {}
        widths, levels = config.widths, len(config.widths)
        pixels = config.patch_size**2 * config.in_channels

        self.time_embedding = [
            nn.Linear(widths[0] * 2, config.embedding_dim),
            nn.Linear(config.embedding_dim, config.embedding_dim),
        ]
        self.class_embedding = [nn.Embedding(n + 1, config.embedding_dim) for n in config.num_classes]

        self.stem = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.down = [Stage(config, i) for i in range(levels)]
        self.downsample = [nn.Linear(4 * widths[i], widths[i + 1]) for i in range(levels - 1)]

        self.upsample = [nn.Linear(widths[i + 1], 4 * widths[i]) for i in range(levels - 1)]
        self.merge = [nn.Linear(2 * widths[i], widths[i]) for i in range(levels - 1)]
        self.up = [Stage(config, i) for i in range(levels - 1)]

        self.norm = nn.RMSNorm(widths[0])
        self.head = Conv3x3(widths[0], pixels)
        self.head.weight = mx.zeros_like(self.head.weight)

    @property
    def config(self) -> UNetConfig:
        """The architecture of the network."""
        return self._config

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of the checkpoint (prediction type, noise schedule, labels, ...); {} for an untrained network."""
        return self._metadata

    @property
    def identity(self) -> str:
        """Hash of the checkpoint; of the weights where there is none, or they were changed by `update`."""
        metadata = self._metadata
        return metadata.get("content_hash") or content_hash(flat_parameters(self), asdict(self._config), metadata)

    def update(self, parameters: dict[str, Any], strict: bool = True) -> nn.Module:  # type: ignore[override]
        """See `nn.Module`; with other weights it is another model than that of its checkpoint."""
        self._metadata = {name: value for name, value in self._metadata.items() if name != "content_hash"}
        return super().update(parameters, strict)

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        return self._config.image_size, self._config.image_size, self._config.in_channels

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) of an image, pixels."""
        return self.state_shape[:2]

    @property
    def conditional(self) -> bool:
        """Whether the network was trained with classes."""
        return bool(self._config.num_classes)

    @property
    def domains(self) -> Mapping[str, Sequence[str]] | None:
        """Domains of the training, with the labels of each; None for a network without classes."""
        labels = self._metadata.get("labels", {})
        return {d: labels.get(d, []) for d in self._metadata.get("domains", ())} if self.conditional else None

    def condition(self, domain: str, label: str | None, caption: str) -> tuple[int, ...]:
        """Class ids of domain and label; the caption is not used. See `PictureModel.condition`."""
        if self.domains is None:
            return ()

        return class_ids(self.domains, domain, label)[: len(self._config.num_classes)]

    def check_condition(self, condition: mx.array) -> None:
        """Refuse class ids that the network does not have. See `ChecksConditions`."""
        check_class_ids(condition, self._config.num_classes)

    def encode(self, pictures: mx.array) -> mx.array:
        """Return the images: the network works on pixels."""
        return pictures

    def decode(self, x0: mx.array) -> mx.array:
        """Return the states: the network works on pixels."""
        return x0

    def embed(self, t: mx.array, classes: mx.array | None) -> mx.array:
        """(B,) timesteps and (B, K) class ids -> (B, embedding_dim); class id 0, or None, is the null class."""
        h = timestep_embedding(t, self._config.widths[0] * 2)
        h = self.time_embedding[1](nn.relu(self.time_embedding[0](h)))
        for k, table in enumerate(self.class_embedding):
            h = h + (table.weight[0] if classes is None else table(classes[:, k]))

        return nn.relu(h)

    def __call__(self, x: mx.array, t: mx.array, classes: mx.array | None = None) -> mx.array:
        """Predict for a batch.

        Args:
            x: (B, H, W, C) noisy images, H = W = `config.image_size`.
            t: (B,) timesteps in [0, T - 1], or a scalar for the whole batch.
            classes: (B, K) integer class ids, one column per vocabulary; 0 is the null class. None: all null.

        Returns:
            (B, H, W, C) prediction.
        """
        embedding = self.embed(mx.broadcast_to(mx.array(t), (x.shape[0],)), classes)
        h = self.stem(fold(x, self._config.patch_size))

        skips = []
        for i, stage in enumerate(self.down):
            if i:
                skips.append(h)
                h = self.downsample[i - 1](fold(h, 2))  # half the side
            h = stage(h, embedding)

        for i in reversed(range(len(self.up))):
            h = mx.concatenate([unfold(self.upsample[i](h), 2), skips.pop()], axis=-1)  # twice the side
            h = self.up[i](self.merge[i](h), embedding)

        return unfold(self.head(nn.relu(self.norm(h))), self._config.patch_size)
