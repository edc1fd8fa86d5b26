"""A training whose state is one file: its settings, its steps, and how it goes on.

The file holds the weights, their moving average, the optimiser and the number of steps. Everything random is a pure
function of the seed and the step, so a killed training continues bit for bit.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from ..diffusion.checks import check_choice, check_count, check_number, check_seed
from ..io.splits import SPLITS
from ..io.training_state import check_seen, described, hash_of, read_state, write_state
from .training_steps import crossed

S = TypeVar("S")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings that all such trainings share; every field is a key of their file in `conf/task/`.

    Attributes:
        data: Domain name -> folder or array file of its images, in the order of the class ids.
        state: Resumable state file of the run (`.safetensors`).
        images: Images of the whole run.
        batch_size: Images per optimiser step, of all processes together.
        learning_rate: Peak learning rate.
        ema_decay: Decay of the moving average of the weights, per step; ramped up at the start.
        validation_fraction: Share of the images of each domain that is held out, in [0, 1).
        split: How the held-out images are chosen, a name in `splits.SPLITS`.
        validate_every: Images between two validations.
        save_every: Images between two writes of the state file.
        seed: Seed of everything random.

    Raises:
        ValueError: for a value out of range, if `data` is empty, or if `state` has another suffix.
    """

    data: dict[str, str]
    state: str
    images: int = 400_000
    batch_size: int = 64
    learning_rate: float = 2e-3
    ema_decay: float = 0.998
    validation_fraction: float = 0.1
    split: str = "per_label"
    validate_every: int = 50_000
    save_every: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("images", "batch_size", "validate_every", "save_every"):
            check_count(name, getattr(self, name), 1)
        check_seed("seed", self.seed)
        check_number("learning_rate", self.learning_rate, 0, 1, above=True)

        for name in ("ema_decay", "validation_fraction"):
            if check_number(name, getattr(self, name), 0, 1) == 1:
                raise ValueError(f"{name} must be less than 1, got {getattr(self, name)}")

        check_choice("split", self.split, tuple(SPLITS))
        if Path(self.state).suffix != ".safetensors":
            raise ValueError(f"state must be a .safetensors file, got {self.state!r}")
        if not self.data:
            raise ValueError("data names no domain; give at least one, e.g. task.data.portraits=/path/to/images")

    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return -(-self.images // self.batch_size)

    def recipe(self) -> dict[str, Any]:
        """The settings that decide the result, except `images`: a finished run may be made longer."""
        free = ("data", "state", "images", "validate_every", "save_every")
        return {name: value for name, value in asdict(self).items() if name not in free}


@dataclass(frozen=True)
class TrainingEvent(Generic[S]):
    """One step of a training.

    Attributes:
        step: Optimiser steps done.
        images: Images seen so far, by all processes and by earlier runs of the same state.
        losses: Each loss of the step by name, before weighting and before the update.
        scores: Scores of the averaged weights on held-out images, if they were measured at this step.
        seconds: Duration of the step.
    """

    step: int
    images: int
    losses: dict[str, float]
    scores: S | None
    seconds: float = field(compare=False)


class ResumableTrainer(ABC, Generic[S]):
    """The state of a training run, and the step that advances it.

    Args:
        config: Settings of the run.
        network: What is trained.
        optimizer: What updates it; every step sets its learning rate.
        train: Training images of each domain, (N, H, W, C) uint8, with their labels, (N, ...).
        facts: What else decides the result, JSON types.

    Raises:
        UnusableFile: if the state file cannot be used.
    """

    NETWORK: ClassVar[str] = "network"  # its name in the state file
    COUNTS: ClassVar[tuple[str, ...]] = ("step",)  # attributes that are whole numbers of the state file

    def __init__(
        self,
        config: TrainingSettings,
        network: nn.Module,
        optimizer: optim.Optimizer,
        train: Sequence[tuple[np.ndarray, np.ndarray]],
        facts: dict[str, Any],
    ):
        self.config, self.network, self.optimizer, self._train = config, network, optimizer, train
        self.ema: dict[str, Any] = tree_map(mx.array, network.trainable_parameters())
        self.optimizer.init(network.trainable_parameters())
        self.step = 0  # optimiser steps done

        pictures = described(config.data, [len(images) for images, _ in train], self.hashes)
        self._recipe = {**config.recipe(), "domains": list(config.data), "pictures": pictures, **facts}

        if Path(config.state).exists():
            self.load_state()
        check_seen(config.state, self.images, config.images, config.batch_size)

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.step * self.config.batch_size

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.step == self.config.steps()

    @cached_property
    def hashes(self) -> list[str]:
        """sha256 of the training images of each domain with their labels, hex."""
        return [hash_of(arrays) for arrays in self._train]

    def run(self) -> Iterator[TrainingEvent[S]]:
        """Train to the end and yield an event per step.

        The state file is written every `save_every` images and at the end.
        """
        c = self.config
        while self.step < c.steps():
            start = time.perf_counter()
            losses = self._advance()
            seconds = time.perf_counter() - start

            scores = self.scores() if self.finished or crossed(c.validate_every, self.images, c.batch_size) else None
            if self.finished or crossed(c.save_every, self.images, c.batch_size):
                self.save_state()
            yield TrainingEvent(self.step, self.images, losses, scores, seconds)

    @abstractmethod
    def scores(self) -> S:
        """Measure the averaged weights on the held-out images."""

    @abstractmethod
    def _advance(self) -> dict[str, float]:
        """Do one optimiser step and return each loss before weighting."""

    def save_state(self) -> None:
        """Write the state file atomically."""
        counts = {name: getattr(self, name) for name in self.COUNTS}
        write_state(self.config.state, self._recipe, self._trees(), **counts)

    def load_state(self) -> None:
        """Continue from the state file of a run with the same recipe.

        Raises:
            UnusableFile: if the file is damaged or has another recipe.
        """
        trees, counts = read_state(self.config.state, self._recipe, self._trees())
        self.network.update(trees[self.NETWORK])
        self.ema, self.optimizer.state = trees["ema"], trees["optimizer"]
        self.optimizer.init(self.network.trainable_parameters())
        for name in self.COUNTS:
            setattr(self, name, counts[name])

    def _trees(self) -> dict[str, Any]:
        """All tensors of the state."""
        return {self.NETWORK: self.network.parameters(), "ema": self.ema, "optimizer": self.optimizer.state}
