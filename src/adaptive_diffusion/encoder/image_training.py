"""What the trainings of encoders share: settings, images, steps and the averaged weights; see `models.resumable`."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from ..diffusion.checks import check_count, check_number
from ..errors import Unusable
from ..io.counted import count
from ..io.pictures import PictureSet, load_pictures
from ..io.pixels import to_float
from ..models.batch_order import BatchOrder, chosen
from ..models.resumable import ResumableTrainer, TrainingSettings
from ..models.training_steps import check_loss, decay

S = TypeVar("S")


@dataclass(frozen=True)
class ImageTraining(TrainingSettings):
    """Settings that the trainings of encoders share beside `TrainingSettings`; every field is a key in `conf/task/`.

    Attributes:
        weight_decay: Weight decay of AdamW. Its learning rate rises over the first twentieth of the run and falls to 0
            as a cosine.
        widths: Channels at 1/2, 1/4, ... of the resolution.
        dimension: Width of the features.
        image_size: Side of the images, pixels.

    Raises:
        ValueError: for a value out of range.
    """

    weight_decay: float = 0.02
    widths: tuple[int, ...] = (48, 96, 192)
    dimension: int = 64
    image_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dimension", "image_size"):
            check_count(name, getattr(self, name), 1)
        check_number("weight_decay", self.weight_decay, 0)
        check_number("validation_fraction", self.validation_fraction, 0, above=True)


def load_split(config: ImageTraining) -> tuple[list[PictureSet], list[PictureSet]]:
    """The training images and the held-out images of each domain.

    Raises:
        Unusable: if the images cannot be read, or are too few.
    """
    sets = []
    for domain, path in config.data.items():
        pictures = load_pictures(path, config.image_size)
        train, held = pictures.split(config.validation_fraction, config.split, config.seed)
        if not len(held):
            raise Unusable(f"{domain}: {count(len(pictures), 'image')}, too few to keep some back")
        sets.append((train, held))

    return [train for train, _ in sets], [held for _, held in sets]


class ImageTrainer(ResumableTrainer[S]):
    """The state of a training run, and the step that advances it.

    Args:
        config: Settings of the run.
        network: What is trained.
        train: Training images of each domain.
        facts: What else decides the result, JSON types.

    Raises:
        UnusableFile: if the state file cannot be used.
    """

    config: ImageTraining

    def __init__(self, config: ImageTraining, network: nn.Module, train: list[PictureSet], facts: dict[str, Any]):
        optimizer = optim.AdamW(learning_rate=0.0, betas=[0.9, 0.99], weight_decay=config.weight_decay)
        super().__init__(config, network, optimizer, [(s.images, s.labels) for s in train], facts)
        self._order = BatchOrder([len(s) for s in train], config.batch_size, config.seed)
        self._loss_and_grad = nn.value_and_grad(network, self._loss)

    @abstractmethod
    def _batch(self, step: int) -> tuple[mx.array, ...]:
        """The data of a step."""

    @abstractmethod
    def _loss(self, *batch: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
        """The weighted loss of the data of `_batch`, and each loss before weighting."""

    def _pictures(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B, H, W, 3) images of a step in [-1, 1], half of them mirrored, their (B,) domains and labels."""
        groups, rows, mirror = self._order(step)
        images, labels = chosen(self._train, groups, rows, mirror)
        return to_float(images), groups, labels

    def _advance(self) -> dict[str, float]:
        c, step, steps = self.config, self.step, self.config.steps()
        (_, unweighted), grads = self._loss_and_grad(*self._batch(step))
        grads, _ = optim.clip_grad_norm(grads, 1.0)

        warm_up = min(1.0, (step + 1) / max(1, steps // 20))
        self.optimizer.learning_rate = c.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / steps))
        self.optimizer.update(self.network, grads)

        share = 1 - decay(step, c.ema_decay)
        self.ema = tree_map(lambda e, p: e + share * (p - e), self.ema, self.network.trainable_parameters())
        mx.eval(self.network.parameters(), self.optimizer.state, self.ema, unweighted)

        losses = {name: float(value) for name, value in unweighted.items()}
        check_loss(losses, step + 1, c.state)
        self.step += 1
        return losses
