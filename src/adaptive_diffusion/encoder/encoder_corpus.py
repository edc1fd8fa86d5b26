"""The data of a training run of the encoder: labelled images of all domains, and their random degradation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..diffusion.conditions import check_label_names
from ..errors import Unusable
from .encoder_training_config import EncoderTraining
from .image_training import load_split


class EncoderCorpus:
    """Images of all domains, in training images and held-out images.

    Attributes:
        domains: Names of the domains.
        train: Training images of each domain.
        held: Held-out images of each domain.
        labels: (domain, label) of all labels, numbered through all domains.

    Args:
        config: Settings of the run.

    Raises:
        Unusable: if the images cannot be read, are too few, have no labels, or have one named `none` or `null`.
    """

    def __init__(self, config: EncoderTraining):
        self.domains = tuple(config.data)
        self.train, self.held = load_split(config)
        names = [pictures.label_names for pictures in self.train]
        self.labels = [(domain, name) for domain, own in zip(self.domains, names, strict=True) for name in own]
        check_label_names(dict(zip(self.domains, names, strict=True)))
        if not self.labels:
            raise Unusable("the images have no labels; give folders with sub-folders, or arrays with labels")
        self._offsets = np.cumsum([0, *map(len, names)])

    def numbered(self, domain: Any, labels: np.ndarray) -> np.ndarray:
        """Labels of a domain (or of an array of domains) as indices of `self.labels`; -1 stays for no label."""
        return np.where(labels < 0, -1, labels + self._offsets[domain])


def degrade(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift, recolour and degrade images by random amounts; half of them are blurred, and half get noise.

    Args:
        x: (B, H, W, 3) float32 in [-1, 1].
        rng: Source of the amounts.

    Returns:
        (B, H, W, 3) float32, clipped to [-1, 1].
    """
    B, H, W, _ = x.shape
    column = (B, 1, 1, 1)

    # Shift by up to a tenth of the image.
    reach = max(1, H // 10)
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    corners = rng.integers(0, 2 * reach + 1, (B, 2))
    x = np.stack([p[i : i + H, j : j + W] for p, (i, j) in zip(padded, corners, strict=True)])

    # Contrast, brightness and colour.
    mean = x.mean(axis=(1, 2), keepdims=True)
    x = mean + (x - mean) * rng.uniform(0.8, 1.2, column) + rng.uniform(-0.1, 0.1, column)

    # Blur with the kernel [a, 1 - 2a, a] along both axes, then noise.
    amounts = rng.random((B, 2)) * (rng.random((B, 2)) < 0.5)
    a = (0.25 * amounts[:, 0]).reshape(column)
    for axis in (1, 2):
        edge = [(0, 0)] * 4
        edge[axis] = (1, 1)
        p = np.pad(x, edge, mode="edge")
        n = x.shape[axis]
        x = (1 - 2 * a) * x + a * (p.take(range(n), axis) + p.take(range(2, n + 2), axis))

    x = x + 0.2 * amounts[:, 1].reshape(column) * rng.standard_normal(x.shape)
    return np.clip(x, -1, 1).astype(np.float32)
