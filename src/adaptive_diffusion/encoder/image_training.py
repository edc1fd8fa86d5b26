"""What the trainings of encoders share: settings, images, steps, the averaged weights, and the state file.

The state of a run is one file. Everything random is a pure function of the seed and the step, so a killed run continues
bit for bit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from ..diffusion.checks import check_choice, check_count, check_number, check_seed
from ..errors import Unusable
from ..io.batch_order import BatchOrder
from ..io.counted import count
from ..io.pictures import PictureSet, load_pictures
from ..io.pixels import to_float
from ..io.splits import SPLITS
from ..io.training_state import check_seen, described, hash_of, read_state, write_state
from ..io.training_steps import check_loss, crossed, decay

S = TypeVar("S")


@dataclass(frozen=True)
class ImageTraining:
    """Settings that the trainings of encoders share; every field is a key of their file in `conf/task/`.

    Attributes:
        data: Domain name -> folder or array file of its images.
        state: Resumable state file of the run (`.safetensors`).
        images: Images of the whole run.
        batch_size: Images per optimiser step.
        learning_rate: Peak learning rate of AdamW. It rises over the first twentieth of the run and falls to 0 as a
            cosine.
        weight_decay: Weight decay of AdamW.
        ema_decay: Decay of the moving average of the weights, per step.
        widths: Channels at 1/2, 1/4, ... of the resolution.
        dimension: Width of the features.
        image_size: Side of the images, pixels.
        validation_fraction: Share of the images of each domain that is held out, in (0, 1).
        split: How the held-out images are chosen, a name in `splits.SPLITS`.
        validate_every: Images between two validations.
        save_every: Images between two writes of the state file.
        seed: Seed of everything random.

    Raises:
        ValueError: for a value out of range, or a `state` of another suffix.
    """

    data: dict[str, str]
    state: str
    images: int = 400_000
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    ema_decay: float = 0.998
    widths: tuple[int, ...] = (48, 96, 192)
    dimension: int = 64
    image_size: int = 32
    validation_fraction: float = 0.1
    split: str = "per_label"
    validate_every: int = 50_000
    save_every: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("images", "batch_size", "dimension", "image_size", "validate_every", "save_every"):
            check_count(name, getattr(self, name), 1)
        check_seed("seed", self.seed)
        check_number("learning_rate", self.learning_rate, 0, 1, above=True)
        check_number("weight_decay", self.weight_decay, 0)

        if check_number("ema_decay", self.ema_decay, 0, 1) == 1:
            raise ValueError(f"ema_decay must be less than 1, got {self.ema_decay}")
        if check_number("validation_fraction", self.validation_fraction, 0, 1, above=True) == 1:
            raise ValueError(f"validation_fraction must be less than 1, got {self.validation_fraction}")

        check_choice("split", self.split, tuple(SPLITS))
        if Path(self.state).suffix != ".safetensors":
            raise ValueError(f"state must be a .safetensors file, got {self.state!r}")

    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return -(-self.images // self.batch_size)


def load_split(config: ImageTraining) -> tuple[list[PictureSet], list[PictureSet]]:
    """The training images and the held-out images of each domain.

    Raises:
        Unusable: if the images cannot be read, or are too few.
    """
    sets = []
    for domain, path in config.data.items():
        pictures = load_pictures(path, config.image_size)
        train, held = pictures.split(config.validation_fraction, config.split, config.seed)
        if not len(train) or not len(held):
            raise Unusable(f"{domain}: {count(len(pictures), 'image')}, too few to keep some back")
        sets.append((train, held))

    return [train for train, _ in sets], [held for _, held in sets]


@dataclass(frozen=True)
class TrainingEvent(Generic[S]):
    """One step of a training.

    Attributes:
        images: Images seen so far.
        losses: Each loss before weighting, by name.
        scores: Scores of the averaged weights, if they were measured at this step.
    """

    images: int
    losses: dict[str, float]
    scores: S | None = None


class ImageTrainer(ABC, Generic[S]):
    """The state of a training run, and the step that advances it.

    Args:
        config: Settings of the run.
        network: What is trained.
        train: Training images of each domain.
        facts: What else decides the result, JSON types.

    Raises:
        UnusableFile: if the state file cannot be used.
    """

    def __init__(self, config: ImageTraining, network: nn.Module, train: list[PictureSet], facts: dict[str, Any]):
        self.config, self._network, self._train = config, network, train
        self.ema: dict[str, Any] = tree_map(mx.array, network.trainable_parameters())
        self.optimizer = optim.AdamW(learning_rate=0.0, betas=[0.9, 0.99], weight_decay=config.weight_decay)
        self.optimizer.init(network.trainable_parameters())
        self.step = 0  # optimiser steps done
        self._recipe = {**self._whole_recipe(), **facts}

        if Path(config.state).exists():
            self.load_state()
        check_seen(config.state, self.images, config.images, config.batch_size)

        self._order = BatchOrder([len(s) for s in train], config.batch_size, config.seed)
        self._loss_and_grad = nn.value_and_grad(network, self._loss)

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.step * self.config.batch_size

    def run(self) -> Iterator[TrainingEvent[S]]:
        """Train to the end and yield an event per step.

        The state file is written every `save_every` images and at the end.
        """
        c, steps = self.config, self.config.steps()
        while self.step < steps:
            losses, last = self._advance(), self.step == steps
            scores = self.scores() if last or crossed(c.validate_every, self.images, c.batch_size) else None
            if last or crossed(c.save_every, self.images, c.batch_size):
                self.save_state()
            yield TrainingEvent(self.images, losses, scores)

    @abstractmethod
    def scores(self) -> S:
        """Measure the averaged weights on the held-out images."""

    @abstractmethod
    def _batch(self, step: int) -> tuple[mx.array, ...]:
        """The data of a step."""

    @abstractmethod
    def _loss(self, *batch: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
        """The weighted loss of the data of `_batch`, and each loss before weighting."""

    def save_state(self) -> None:
        """Write the state file atomically."""
        write_state(self.config.state, self._recipe, self._trees(), step=self.step)

    def load_state(self) -> None:
        """Continue from the state file of a run with the same recipe.

        Raises:
            UnusableFile: if the file is damaged or has another recipe.
        """
        trees, counts = read_state(self.config.state, self._recipe, self._trees())
        self._network.update(trees["network"])
        self.ema, self.optimizer.state, self.step = trees["ema"], trees["optimizer"], counts["step"]

    def _trees(self) -> dict[str, Any]:
        """All tensors of the state."""
        return {"network": self._network.parameters(), "ema": self.ema, "optimizer": self.optimizer.state}

    def _whole_recipe(self) -> dict[str, Any]:
        """All settings and images that decide the result, except `images`: a finished run may be made longer."""
        free = ("data", "state", "images", "validate_every", "save_every")
        return {
            **{name: value for name, value in asdict(self.config).items() if name not in free},
            "domains": list(self.config.data),
            "pictures": described(self.config.data, map(len, self._train), self.hashes),
        }

    @cached_property
    def hashes(self) -> list[str]:
        """sha256 of the training images of each domain with their labels, hex."""
        return [hash_of([pictures.images, pictures.labels]) for pictures in self._train]

    def _pictures(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B, H, W, 3) images of a step in [-1, 1], half of them mirrored, their (B,) domains and labels."""
        groups, rows, mirror = self._order(step)
        sets = [self._train[g] for g in groups]
        images = np.stack(
            [s.images[r][:, ::-1] if m else s.images[r] for s, r, m in zip(sets, rows, mirror, strict=True)]
        )
        return to_float(images), groups, np.array([s.labels[r] for s, r in zip(sets, rows, strict=True)])

    def _advance(self) -> dict[str, float]:
        """Do one optimiser step and return each loss before weighting."""
        c, step, steps = self.config, self.step, self.config.steps()
        (_, unweighted), grads = self._loss_and_grad(*self._batch(step))
        grads, _ = optim.clip_grad_norm(grads, 1.0)

        warm_up = min(1.0, (step + 1) / max(1, steps // 20))
        self.optimizer.learning_rate = c.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / steps))
        self.optimizer.update(self._network, grads)

        share = 1 - decay(step, c.ema_decay)
        self.ema = tree_map(lambda e, p: e + share * (p - e), self.ema, self._network.trainable_parameters())
        mx.eval(self._network.parameters(), self.optimizer.state, self.ema, unweighted)

        losses = {name: float(value) for name, value in unweighted.items()}
        check_loss(losses, step + 1, c.state)
        self.step += 1
        return losses
