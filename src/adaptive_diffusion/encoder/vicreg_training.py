"""Training of the VICReg encoder (Bardes et al., 2022); it takes minutes on a CPU.

Two crops of an image, moved, mirrored and slightly recoloured, shall have the same embedding (invariance), while every
dimension of the embedding varies over the batch (variance) and no two of them vary together (covariance). A crop is cut
out and never resized, and nothing is blurred or made noisy: the features may react to lost detail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..errors import Unusable
from ..io.counted import count
from ..io.pixels import to_float
from .image_training import ImageTrainer, ImageTraining, load_split
from .vicreg import DETAILS, VICRegConfig, VICRegEncoder, VICRegNetwork

LOSS_WEIGHTS = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}  # of the paper
EMBEDDING = 256  # width of the embeddings that the loss compares
CROP = 3 / 4  # side of a crop, in sides of the image
# Standard deviation of a detail: noise of 2.5 grey levels then counts about as a blur [0.05, 0.9, 0.05] does.
DETAIL = 0.3
_SCORED = 256  # held-out images in the scores


@dataclass(frozen=True)
class VICRegTraining(ImageTraining):
    """One training run; every field is a key of `conf/task/vicreg.yaml`.

    Attributes as of `ImageTraining`.

    Raises:
        ValueError: for a value out of range, also for the network, or without a domain.
    """

    images: int = 200_000
    batch_size: int = 128
    widths: tuple[int, ...] = (32, 64, 128)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 2:
            raise ValueError("batch_size must be at least 2: the loss compares the images of a batch")
        self.network()

    def network(self) -> VICRegConfig:
        """The architecture."""
        return VICRegConfig(self.image_size, tuple(self.widths), self.dimension)


class _Expanded(nn.Module):
    """The network, and the expander that maps what it gives to embeddings; only the training needs the latter."""

    def __init__(self, config: VICRegConfig):
        super().__init__()
        self.network = VICRegNetwork(config)
        self.expander = nn.Sequential(
            nn.LayerNorm(config.pooled), nn.Linear(config.pooled, EMBEDDING), nn.ReLU(), nn.Linear(EMBEDDING, EMBEDDING)
        )

    def __call__(self, x: mx.array) -> mx.array:
        return mx.array(self.expander(self.network.pooled(x)))


class VICRegTrainer(ImageTrainer[dict[str, float]]):
    """The state of a training run, and the step that advances it.

    Args:
        config: Settings of the run.

    Raises:
        Unusable: if the data or the state file cannot be used.
    """

    config: VICRegTraining

    def __init__(self, config: VICRegTraining):
        train, self.held = load_split(config)
        mx.random.seed(config.seed)
        super().__init__(config, _Expanded(config.network()), train, {})

    def scores(self) -> dict[str, float]:
        """Each loss before weighting of held-out images of all domains, of the averaged weights."""
        images = np.concatenate([held.images[: _SCORED // len(self.held) + 1] for held in self.held])
        averaged = _Expanded(self.config.network())
        averaged.update(self.ema)
        views = _views(to_float(images), np.random.default_rng([self.config.seed, 4]))
        return {name: float(value) for name, value in vicreg_losses(*(averaged(v) for v in views)).items()}

    def finish(self) -> VICRegEncoder:
        """The encoder with the averaged weights, whitened on the training images.

        Raises:
            Unusable: if there are fewer training images than features.
        """
        network = VICRegNetwork(self.config.network())
        network.update(self.ema["network"])
        network.eval()
        raw = []
        for images, _ in self._train:
            x = to_float(images)
            found = [np.array(network.raw(mx.array(x[i : i + 64])), np.float64) for i in range(0, len(x), 64)]
            raw.append(np.concatenate(found))

        weight, bias = fit_whitening(raw, self.config.dimension)
        network.whiten.weight, network.whiten.bias = (mx.array(v.astype(np.float32)) for v in (weight, bias))
        return VICRegEncoder(network, {})

    def _batch(self, step: int) -> tuple[mx.array, ...]:
        """Two (B, h, w, 3) views of the images of a step."""
        pictures, _, _ = self._pictures(step)
        return _views(pictures, np.random.default_rng([self.config.seed, 3, step]))

    def _loss(self, *batch: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
        """The weighted loss of two views, and each loss before weighting."""
        embeddings: Any = self.network(mx.concatenate(list(batch)))
        losses = vicreg_losses(*mx.split(embeddings, 2))
        return sum((LOSS_WEIGHTS[name] * loss for name, loss in losses.items()), mx.array(0.0)), losses


def vicreg_losses(a: mx.array, b: mx.array) -> dict[str, mx.array]:
    """The three terms of VICReg of the (B, D) embeddings of two views, before weighting."""
    B, D = a.shape
    variance, covariance = mx.array(0.0), mx.array(0.0)
    for z in (a, b):
        centred = z - z.mean(axis=0)
        matrix = centred.T @ centred / (B - 1)
        spread = mx.sqrt(mx.diag(matrix) + 1e-4)
        variance = variance + mx.maximum(0.0, 1.0 - spread).mean() / 2
        covariance = covariance + (mx.square(matrix).sum() - mx.square(mx.diag(matrix)).sum()) / D

    return {"invariance": mx.square(a - b).mean(), "variance": variance, "covariance": covariance}


def fit_whitening(raw: list[np.ndarray], dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """The linear map to features that have a known variance within a domain.

    A distance between images of one domain is thus not ruled by what tells domains apart. Of the learned values, scaled
    to unit variance, the greatest principal components are kept and whitened. The details of patches are scaled to the
    standard deviation `DETAIL`: whitened, they would answer to noise that nobody sees.

    Args:
        raw: (N, pooled + DETAILS) of each domain.
        dimension: Features wanted.

    Returns:
        (dimension, pooled + DETAILS) weight and (dimension,) bias.

    Raises:
        Unusable: if there are fewer images than features.
    """
    total = sum(len(x) for x in raw)
    if total <= dimension + len(raw):
        raise Unusable(f"{count(total, 'image')}, too few to whiten {dimension} features")

    centred = np.concatenate([x - x.mean(axis=0) for x in raw])
    split = centred.shape[1] - DETAILS
    weight = np.zeros((dimension, centred.shape[1]))
    weight[: dimension - DETAILS, :split] = _components(centred[:, :split], dimension - DETAILS)
    weight[dimension - DETAILS :, split:] = np.diag(DETAIL / _spread(centred[:, split:]))
    return weight, -weight @ np.mean([x.mean(axis=0) for x in raw], axis=0)


def _components(centred: np.ndarray, count: int) -> np.ndarray:
    """(count, D) map of (N, D) values to their greatest principal components, scaled to unit variance."""
    scale = _spread(centred)
    values, vectors = np.linalg.eigh(np.cov(centred / scale, rowvar=False))
    largest = values[::-1][:count]
    return np.asarray((vectors[:, ::-1][:, :count] / np.sqrt(np.maximum(largest, 1e-6))).T / scale)


def _views(x: np.ndarray, rng: np.random.Generator) -> tuple[mx.array, mx.array]:
    """Two random views of (B, H, W, 3) images in [-1, 1]: crops, of which half are mirrored, slightly recoloured."""
    return _view(x, rng), _view(x, rng)


def _view(x: np.ndarray, rng: np.random.Generator) -> mx.array:
    B, H, W, _ = x.shape
    height, width = round(H * CROP), round(W * CROP)
    corners = zip(rng.integers(0, H - height + 1, B), rng.integers(0, W - width + 1, B), strict=True)
    x = np.stack([image[i : i + height, j : j + width] for image, (i, j) in zip(x, corners, strict=True)])
    x = np.where(rng.random((B, 1, 1, 1)) < 0.5, x[:, :, ::-1], x)

    mean = x.mean(axis=(1, 2), keepdims=True)
    x = mean + (x - mean) * rng.uniform(0.8, 1.2, (B, 1, 1, 1)) + rng.uniform(-0.1, 0.1, (B, 1, 1, 3))
    return mx.array(np.clip(x, -1, 1).astype(np.float32))


def _spread(values: np.ndarray) -> np.ndarray:
    """(D,) standard deviations of (N, D) values; infinite for a value that is nearly constant, which leaves it out."""
    spread = values.std(axis=0)
    return np.where(spread > 1e-3 * spread.max(), spread, np.inf)
