"""The encoder that ships with the project: a picture tower and a caption tower that meet in one space.

It serves the Frechet distance (`fd_encoder`), the agreement of pictures and captions (`clip_encoder`), the perceptual
distance of two pictures, and the detection of domains. It is neither Inception, nor CLIP, nor LPIPS: its numbers carry
its own name. In the line of CLIP (Radford et al., 2021), a thousand times smaller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..diffusion.checks import check_number
from ..errors import UserError
from ..io.files import ASSETS
from ..io.network_file import read_network, write_network
from ..io.pixels import prepare_all, to_float
from ..metrics.features import in_batches
from ..metrics.pictures import as_float, as_uint8
from .words import WordVectors, load_words

FORMAT = "adaptive-diffusion/encoder/1"
BUILTIN_ENCODER = ASSETS / "encoder.safetensors"
LARGEST_TEMPERATURE = 1e6
SHARPNESS_LEVELS = 2
SHARPNESS_FLOOR = 0.02  # 2.5 of 255 grey levels: below it, a picture counts as flat
SHARPNESS_SCALE = 8.0  # makes the features that measure sharpness vary about as much as the learned ones
_UNIT_EPS = 1e-6


@dataclass(frozen=True)
class EncoderConfig:
    """The architecture of an `EncoderNetwork`.

    Attributes:
        domains: Names of the domains, in the order of the domain head.
        image_size: Side of the pictures it works on, pixels.
        widths: Channels at 1/2, 1/4, ... of the resolution.
        dimension: Width of the features and of the shared space.
        word_dimension: Width of the word vectors.
    """

    domains: tuple[str, ...]
    image_size: int = 32
    widths: tuple[int, ...] = (48, 96, 192)
    dimension: int = 64
    word_dimension: int = 64

    def __post_init__(self) -> None:
        for name in ("domains", "widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths must name at least one positive channel count, got {self.widths}")
        if self.image_size % 2 ** len(self.widths):
            raise ValueError(
                f"image_size must be a multiple of {2 ** len(self.widths)} for {len(self.widths)} widths, "
                f"got {self.image_size}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


class _Block(nn.Module):
    """x + conv(relu(conv(norm(x))))."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def __call__(self, x: mx.array) -> mx.array:
        return x + self.conv2(nn.relu(self.conv1(self.norm(x))))


class EncoderNetwork(nn.Module):
    """The two towers and their heads."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self._config = config
        incoming = (3, *config.widths[:-1])
        pairs = zip(incoming, config.widths, strict=True)
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
            B, H, W, C = x.shape
            x = x.reshape(B, H // 2, 2, W // 2, 2, C).transpose(0, 1, 3, 2, 4, 5).reshape(B, H // 2, W // 2, 4 * C)
            x = block(nn.relu(shrink(x)))
            maps.append(x)
        return maps

    def features(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) in [-1, 1] -> (B, dimension): mean and spread of the coarsest map, mixed linearly."""
        last = nn.relu(self.stages(x)[-1])
        mean = last.mean(axis=(1, 2))
        spread = mx.sqrt(mx.square(last - mean[:, None, None]).mean(axis=(1, 2)) + 1e-6)
        return self.to_features(mx.concatenate([mean, spread], axis=-1))

    def embed_features(self, features: mx.array) -> mx.array:
        """(B, dimension) features -> unit vectors of the shared space."""
        return _unit(self.to_shared(features))

    def embed_words(self, vectors: mx.array) -> mx.array:
        """(B, word_dimension) mean word vectors -> unit vectors of the shared space."""
        return _unit(self.words_to_shared(vectors))


class Encoder:
    """A trained `EncoderNetwork` with its word vectors.

    Args:
        network: The network.
        words: The word vectors it was trained with.
        metadata: What the file says of it, with `content_hash`.

    Raises:
        UserError: if it was trained with other word vectors.
    """

    def __init__(self, network: EncoderNetwork, words: WordVectors, metadata: dict[str, Any]):
        if metadata.get("words_hash", words.content_hash) != words.content_hash:
            raise UserError("the encoder was trained with other word vectors than the ones given; train it again")
        self.network, self.words, self.metadata = network, words, metadata
        self.config = network._config

    @property
    def name(self) -> str:
        """For statistics files: kind and width of the features, e.g. "encoder/66"."""
        return f"encoder/{self.config.dimension + SHARPNESS_LEVELS}"

    @property
    def content_hash(self) -> str:
        """Hash of the weights and the architecture."""
        return str(self.metadata.get("content_hash", ""))

    def features(self, images: Any, batch_size: int = 32) -> np.ndarray:
        """Features for distances between sets: the learned ones, and how sharp a picture is at two scales.

        What is learned for telling motifs hardly sees blur or noise, by which samplers with few steps differ.

        Args:
            images: (N, H, W, 3) pictures, uint8 or float in [-1, 1]; of another size than the encoder's they are
                cropped in the middle and resized.
            batch_size: Pictures per evaluation.

        Returns:
            (N, d) float32, d = `config.dimension` + 2.

        Raises:
            ValueError: for unfit pictures, see `pictures.check_pictures`.
        """

        def encode(x: np.ndarray) -> mx.array:
            return mx.concatenate(
                [self.network.features(mx.array(x)), SHARPNESS_SCALE * sharpness(mx.array(x))], axis=-1
            )

        return in_batches(encode, self._prepared(images), batch_size=batch_size)

    def image_embeddings(self, images: Any) -> np.ndarray:
        """(N, d) unit vectors of pictures, see `features`."""
        learned = self.features(images)[:, : self.config.dimension]
        return np.array(self.network.embed_features(mx.array(learned)))

    def text_embeddings(self, captions: Sequence[str]) -> np.ndarray:
        """(N, d) unit vectors of captions.

        Raises:
            ValueError: if there is no caption, or one without a word.
        """
        if isinstance(captions, str):
            raise ValueError("captions must be a list of texts, got one text; give [caption]")
        if not captions:
            raise ValueError("at least one caption is needed, got none")
        return np.array(self.network.embed_words(mx.array(self.words.text_vectors(list(captions)))))

    def scores(self, images: Any, caption: str) -> np.ndarray:
        """(N,) float64, 100 x cosine of each picture and the caption, in [-100, 100].

        Raises:
            ValueError: for unfit pictures, or a caption without a word.
        """
        return 100.0 * self.image_embeddings(images).astype(np.float64) @ self.text_embeddings([caption])[0]

    def perceptual_distances(self, a: Any, b: Any, batch_size: int = 32) -> np.ndarray:
        """Distance of each picture of `a` from the picture of `b` in the same place.

        As LPIPS (Zhang et al., 2018) without its learned weights: squared differences of the feature maps, each
        pixel's vector scaled to length 1, averaged over pixels and added over the depths.

        Args:
            a: (N, H, W, 3), uint8 or float in [-1, 1].
            b: As `a`.
            batch_size: Pairs per evaluation.

        Returns:
            (N,) float32, from 0 to 4 for each depth.

        Raises:
            ValueError: for unfit pictures, or shapes that differ.
        """
        x, y = as_float(a), as_float(b)
        if x.shape != y.shape:
            raise ValueError(f"both must be the same number of pictures of the same size, got {x.shape} and {y.shape}")

        def distance(p: np.ndarray, q: np.ndarray) -> mx.array:
            pairs = zip(self.network.stages(mx.array(p)), self.network.stages(mx.array(q)), strict=True)
            return sum(
                (mx.square(_unit(u) - _unit(v)).sum(axis=-1).mean(axis=(1, 2)) for u, v in pairs), mx.zeros(len(p))
            )

        return in_batches(distance, self._prepared(x), self._prepared(y), batch_size=batch_size)

    def _prepared(self, images: Any) -> np.ndarray:
        """As references are read: of another size, cropped in the middle and resized, in 8 bits as files hold them."""
        x, side = as_float(images), self.config.image_size
        return x if x.shape[1:3] == (side, side) else to_float(prepare_all(as_uint8(x), (side, side)))


def sharpness(x: mx.array) -> mx.array:
    """(B, H, W, C) in [-1, 1] -> (B, 2): log of the mean absolute Laplacian, at full and at half resolution."""
    levels = []
    for _ in range(SHARPNESS_LEVELS):
        inner = x[:, 1:-1, 1:-1]
        laplacian = 4 * inner - x[:, :-2, 1:-1] - x[:, 2:, 1:-1] - x[:, 1:-1, :-2] - x[:, 1:-1, 2:]
        levels.append(mx.log(mx.abs(laplacian).mean(axis=(1, 2, 3)) + SHARPNESS_FLOOR))
        B, H, W, C = x.shape
        x = x.reshape(B, H // 2, 2, W // 2, 2, C).mean(axis=(2, 4))
    return mx.stack(levels, axis=-1)


def save_encoder(path: str | Path, network: EncoderNetwork, metadata: dict[str, Any]) -> str:
    """Write an encoder file atomically, float16; returns its content hash."""
    return write_network(path, network, network._config.to_dict(), metadata, format=FORMAT, dtype=mx.float16)


def load_encoder(path: str | Path, words: WordVectors | None = None) -> Encoder:
    """Read an encoder file.

    Args:
        path: What `train.py task=encoder` wrote.
        words: The word vectors it was trained with; None: those that ship with the project.

    Raises:
        UserError: if the file is missing, damaged, of another kind, or belongs to other word vectors.
    """

    def build(config: dict[str, Any]) -> EncoderNetwork:
        return EncoderNetwork(EncoderConfig(**config))

    network, metadata = read_network(path, build, format=FORMAT, what="EncoderNetwork", task="encoder")
    try:
        check_number("image_temperature", metadata.get("image_temperature", 1.0), 0, LARGEST_TEMPERATURE, above=True)
    except ValueError as error:
        raise UserError(f"{path} says of its encoder what cannot be: {error}") from error
    return Encoder(network, words or load_words(), metadata)


@cache
def load_builtin_encoder() -> Encoder:
    """The encoder that ships with the project, loaded once per process.

    Raises:
        UserError: if the shipped file is missing or damaged.
    """
    return load_encoder(BUILTIN_ENCODER)


def _unit(x: mx.array) -> mx.array:
    """Vectors along the last axis, scaled to length 1."""
    return x * mx.rsqrt(mx.square(x).sum(axis=-1, keepdims=True) + _UNIT_EPS)
