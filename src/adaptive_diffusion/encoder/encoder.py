"""The project's own encoder: an image tower and a caption tower with one shared space.

It is built like CLIP (Radford et al., 2021) and a thousand times smaller. It measures the Frechet distance
(`fd_encoder`), the agreement of images and captions (`clip_encoder`) and the perceptual distance of two images, and it
detects domains. Its numbers carry its own name, because they are not those of Inception, CLIP or LPIPS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_number
from ..errors import UnusableFile
from ..io.files import ASSETS
from ..io.network_file import read_network, write_network
from ..metrics.features import in_batches
from ..metrics.pictures import as_float, at_side
from ..models.patches import patch_means
from .network import EncoderConfig, EncoderNetwork, unit
from .words import WordVectors, load_words

FORMAT = "adaptive-diffusion/encoder/1"
BUILTIN_ENCODER = ASSETS / "encoder.safetensors"
LARGEST_TEMPERATURE = 1e6
SHARPNESS_LEVELS = 2
SHARPNESS_FLOOR = 0.02  # 2.5 of 255 grey levels; an image with less contrast counts as flat
SHARPNESS_SCALE = 8.0  # gives the sharpness features about the same variance as the learned features


class Encoder:
    """A trained `EncoderNetwork` with its word vectors.

    Args:
        network: The network.
        words: The word vectors it was trained with.
        metadata: Metadata of the encoder file, with `content_hash`.

    Raises:
        ValueError: if the network was trained with other word vectors.
    """

    def __init__(self, network: EncoderNetwork, words: WordVectors, metadata: dict[str, Any]):
        if metadata.get("words_hash", words.content_hash) != words.content_hash:
            raise ValueError("the encoder was trained with other word vectors than the ones given; train it again")
        self.network, self.words, self.metadata = network, words, metadata
        self.config = network._config

    @property
    def name(self) -> str:
        """Kind and width of the features, as statistics files name them, e.g. "encoder/66"."""
        return f"encoder/{self.config.dimension + SHARPNESS_LEVELS}"

    @property
    def content_hash(self) -> str:
        """Hash of the weights and the architecture."""
        return str(self.metadata.get("content_hash", ""))

    def features(self, images: Any, batch_size: int = 32) -> np.ndarray:
        """Features for distances between sets of images: the learned features, and the sharpness at two scales.

        Samplers with few steps differ in blur and noise. The learned features hardly react to either, the sharpness
        does.

        Args:
            images: (N, H, W, 3) uint8, or float in [-1, 1]. Images of another size are cropped in the middle and
                resized to the encoder's size.
            batch_size: Images per evaluation of the encoder.

        Returns:
            (N, d) float32, d = `config.dimension` + 2.

        Raises:
            ValueError: for unfit images, see `pictures.check_pictures`.
        """

        def encode(x: np.ndarray) -> mx.array:
            return mx.concatenate(
                [self.network.features(mx.array(x)), SHARPNESS_SCALE * sharpness(mx.array(x))], axis=-1
            )

        return in_batches(encode, at_side(images, self.config.image_size), batch_size=batch_size)

    def image_embeddings(self, images: Any) -> np.ndarray:
        """(N, d) unit vectors of images in the shared space; arguments and errors as for `features`."""
        # The shared space is trained on the learned features alone, without the sharpness.
        learned = self.features(images)[:, : self.config.dimension]
        return np.array(self.network.embed_features(mx.array(learned)))

    def text_embeddings(self, captions: Sequence[str]) -> np.ndarray:
        """(N, d) unit vectors of captions in the shared space.

        Raises:
            ValueError: if there is no caption, or a caption without a word.
        """
        if isinstance(captions, str):
            raise ValueError("captions must be a list of texts, got one text; give [caption]")
        if not captions:
            raise ValueError("at least one caption is needed, got none")
        return np.array(self.network.embed_words(mx.array(self.words.text_vectors(list(captions)))))

    def scores(self, images: Any, caption: str) -> np.ndarray:
        """(N,) float64, 100 x cosine of each image and the caption, in [-100, 100].

        Raises:
            ValueError: for unfit images, or a caption without a word.
        """
        return 100.0 * self.image_embeddings(images).astype(np.float64) @ self.text_embeddings([caption])[0]

    def perceptual_distances(self, a: Any, b: Any) -> np.ndarray:
        """Perceptual distance of each pair of images (a[i], b[i]).

        This is LPIPS (Zhang et al., 2018) without learned weights. The vector of each pixel of a feature map is scaled
        to length 1; squared differences are averaged over pixels and added over the stages.

        Args:
            a: (N, H, W, 3), uint8 or float in [-1, 1].
            b: As `a`.

        Returns:
            (N,) float32, in [0, 4] for each stage.

        Raises:
            ValueError: for unfit images, or if the shapes of `a` and `b` differ.
        """
        x, y = as_float(a), as_float(b)
        if x.shape != y.shape:
            raise ValueError(f"both must be the same number of images of the same size, got {x.shape} and {y.shape}")

        def distance(p: np.ndarray, q: np.ndarray) -> mx.array:
            # Per stage: (B, h, w, C) -> (B, h, w) -> (B,).
            pairs = zip(self.network.stages(mx.array(p)), self.network.stages(mx.array(q)), strict=True)
            return sum(
                (mx.square(unit(u) - unit(v)).sum(axis=-1).mean(axis=(1, 2)) for u, v in pairs), mx.zeros(len(p))
            )

        side = self.config.image_size
        return in_batches(distance, at_side(x, side), at_side(y, side), batch_size=32)


def sharpness(x: mx.array) -> mx.array:
    """The log of the mean absolute Laplacian, at full and at half resolution.

    Args:
        x: (B, H, W, C) in [-1, 1], H and W even and at least `network.SMALLEST`.

    Returns:
        (B, 2).
    """
    levels = []
    for level in range(SHARPNESS_LEVELS):
        if level:
            x = patch_means(x)  # half the resolution

        inner = x[:, 1:-1, 1:-1]
        laplacian = 4 * inner - x[:, :-2, 1:-1] - x[:, 2:, 1:-1] - x[:, 1:-1, :-2] - x[:, 1:-1, 2:]
        levels.append(mx.log(mx.abs(laplacian).mean(axis=(1, 2, 3)) + SHARPNESS_FLOOR))

    return mx.stack(levels, axis=-1)


def save_encoder(path: str | Path, network: EncoderNetwork, metadata: dict[str, Any]) -> str:
    """Write an encoder file atomically, with float16 weights, and return its content hash."""
    return write_network(path, network, asdict(network._config), metadata, format=FORMAT, dtype=mx.float16)


def load_encoder(path: str | Path) -> Encoder:
    """Read an encoder file.

    Args:
        path: An encoder file, as `train.py task=encoder` writes it.

    Raises:
        UnusableFile: if the file is missing, damaged or of another kind, or if its training used other word vectors
            than those that ship.
    """

    def build(config: dict[str, Any]) -> EncoderNetwork:
        return EncoderNetwork(EncoderConfig(**config))

    network, metadata = read_network(path, build, format=FORMAT, what="EncoderNetwork", task="encoder")
    try:
        check_number("image_temperature", metadata.get("image_temperature", 1.0), 0, LARGEST_TEMPERATURE, above=True)
        return Encoder(network, load_words(), metadata)
    except UnusableFile:
        raise
    except ValueError as error:
        raise UnusableFile(f"{path} says of its encoder what cannot be: {error}") from error


@cache
def load_builtin_encoder() -> Encoder:
    """Load the shipped encoder, once per process.

    Raises:
        UnusableFile: if the shipped file is missing or damaged.
    """
    return load_encoder(BUILTIN_ENCODER)
