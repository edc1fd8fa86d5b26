"""Training of the denoiser, as a generator of events; resumable at any step and data-parallel.

The state of a run is one file: weights, their moving average, the optimiser and the step number. Everything random is a
pure function of the seed and the step (see `examples`). So a killed run continues bit for bit, and several processes
can share one global batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

from ..diffusion.schedule import NoiseSchedule
from ..errors import Unusable
from ..io.training_state import check_seen, described, hash_of, read_state, write_state
from ..io.training_steps import check_loss, crossed, decay
from .checkpoint import load_model
from .corpus import Corpus
from .examples import Examples, ExampleSource, losses
from .training_config import TrainingConfig
from .unet import SimpleUNet, UNetConfig


@dataclass(frozen=True)
class TrainingEvent:
    """One step of the training.

    Attributes:
        step: Optimiser steps done.
        images: Images seen so far, by all processes and by earlier runs of the same state.
        loss: Training loss of the step (weighted mean squared error of the prediction), before the update.
        learning_rate: Learning rate of the step.
        seconds: Duration of the step.
        validation_loss: Loss of the averaged weights on held-out images, if it was measured at this step.
    """

    step: int
    images: int
    loss: float
    learning_rate: float
    seconds: float
    validation_loss: float | None = None


class Trainer:
    """The state of a training run, and the step that advances it.

    Args:
        config: Settings of the run.
        group: Processes that share each batch; by default the processes of `mlx.launch`, or this process alone.

    Raises:
        Unusable: if the data, the configuration or the state file cannot be used.
    """

    def __init__(self, config: TrainingConfig, group: mx.distributed.Group | None = None):
        self.config = config

        self.group = group or mx.distributed.init()
        if config.batch_size % self.group.size():
            raise Unusable(f"batch_size {config.batch_size} must be a multiple of the {self.group.size()} processes")

        self.schedule = NoiseSchedule(**config.noise_schedule)
        self.corpus = Corpus(config)
        self._source = ExampleSource(config, self.schedule, self.corpus, self.group.rank(), self.group.size())

        mx.random.seed(config.seed)
        self.model = SimpleUNet(UNetConfig(**config.architecture, num_classes=self.corpus.num_classes))
        self._images_before = 0  # images that the first weights of this run had seen

        resumed = Path(config.state).exists()
        if config.start_from is not None and not resumed:
            self._start_from(load_model(config.start_from))

        self.averaged = SimpleUNet(self.model.config)
        self.averaged.update(tree_map(mx.array, self.model.parameters()))

        # The learning rate is set in every step.
        self.optimizer = optim.Adam(learning_rate=0.0, betas=[0.9, 0.99])
        self.optimizer.init(self.model.trainable_parameters())
        self.step = 0
        self._recipe = self._whole_recipe()
        self._loss_and_grad = nn.value_and_grad(self.model, self._loss)
        self._next: tuple[int, Examples] | None = None

        if resumed:
            self.load_state()
        check_seen(config.state, self.images, config.images, config.batch_size)

        state = [self.model.state, self.averaged.state, self.optimizer.state]

        # On a CPU, compilation saves no time and needs a compiler.
        on_gpu = mx.default_device() == mx.gpu
        self._update = mx.compile(self._update_all, inputs=state, outputs=state) if on_gpu else self._update_all

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.step * self.config.batch_size

    def run(self) -> Iterator[TrainingEvent]:
        """Train to the end and yield an event per step.

        The state file is written every `save_every` images and at the end.
        """
        c, steps = self.config, self.config.steps()
        while self.step < steps:
            start = time.perf_counter()
            rate = self.learning_rate(self.step)
            loss = self._advance(rate)
            seconds = time.perf_counter() - start
            last = self.step == steps
            measured = last or crossed(c.validate_every, self.images, c.batch_size)
            validation = self.validation_loss() if measured else None
            if last or crossed(c.save_every, self.images, c.batch_size):
                self.save_state()

            yield TrainingEvent(self.step, self.images, loss, rate, seconds, validation)

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, constant, linear decay to 0."""
        c, done = self.config, (step + 1) * self.config.batch_size
        rise = min(1.0, done / max(c.warmup_images, 1))
        fall = min(1.0, max(c.images - done + c.batch_size, 0) / max(c.decay_images, 1))
        return c.learning_rate * min(rise, fall)

    def ema_model(self) -> SimpleUNet:
        """A copy of the network with the averaged weights."""
        model = SimpleUNet(self.model.config)
        model.update(self.averaged.parameters())
        model._metadata = self.metadata()
        return model

    def metadata(self) -> dict[str, Any]:
        """Metadata of a checkpoint of this run."""
        c = self.config
        return {
            "prediction_type": c.prediction_type,
            "guidance_scale": c.guidance_scale,
            "noise_schedule": c.noise_schedule,
            "domains": list(self.corpus.domains),
            "labels": {domain: list(names) for domain, names in self.corpus.labels.items()},
            "label_counts": self.corpus.label_counts,
            "images_seen": self._images_before + self.images,
            "training": {k: v for k, v in asdict(c).items() if k not in ("data", "state", "start_from")},
        }

    def validation_loss(self) -> float:
        """Mean loss of the averaged weights on held-out images; NaN without such images."""
        model, total, count = self.ema_model(), 0.0, 0
        for examples in self._source.validation():
            total += float(losses(model, examples).sum())
            count += len(examples.t)

        return total / count if count else math.nan

    def save_state(self) -> None:
        """Write the state file atomically (first process only)."""
        if self.group.rank():
            return
        counts = {"step": self.step, "images_before": self._images_before}
        write_state(self.config.state, self._recipe, self._trees(), **counts)

    def load_state(self) -> None:
        """Continue from the state file of a run with the same recipe.

        Raises:
            UnusableFile: if the file is damaged or has another recipe.
        """
        trees, counts = read_state(self.config.state, self._recipe, self._trees())
        self.model.update(trees["model"])
        self.averaged.update(trees["ema"])
        self.optimizer.state = trees["optimizer"]
        self.optimizer.init(self.model.trainable_parameters())
        self.step, self._images_before = counts["step"], counts["images_before"]

    def _trees(self) -> dict[str, Any]:
        """All tensors of the state."""
        return {"model": self.model.parameters(), "ema": self.averaged.parameters(), "optimizer": self.optimizer.state}

    def _start_from(self, model: SimpleUNet) -> None:
        """Copy the weights of a trained network of the same architecture."""
        if model.config != self.model.config:
            raise Unusable(
                f"start_from={self.config.start_from} has another architecture ({model.config}) than this run "
                f"({self.model.config}); make architecture and the labels of the data agree"
            )

        self.model.update(model.parameters())
        self._images_before = model.metadata.get("images_seen", 0)

    def _whole_recipe(self) -> dict[str, Any]:
        """All settings and data that decide the result, except `images`: a finished run may be made longer."""
        c = self.config
        free = ("data", "state", "start_from", "images", "validation_images", "validate_every", "save_every")
        return {
            **{name: value for name, value in asdict(c).items() if name not in free},
            "start_from": None if c.start_from is None else str(Path(c.start_from).absolute()),
            "domains": list(self.corpus.domains),
            "labels": self.corpus.labels,
            "pictures": described(self.corpus.domains, [len(images) for images, _ in self.corpus.train], self.hashes),
        }

    @cached_property
    def hashes(self) -> list[str]:
        """sha256 of the training images of each domain with their classes, hex."""
        return [hash_of([images, classes]) for images, classes in self.corpus.train]

    def _advance(self, learning_rate: float) -> float:
        """Do one optimiser step and return the loss over the global batch."""
        c = self.config
        self.optimizer.learning_rate = learning_rate
        examples = self._next[1] if self._next and self._next[0] == self.step else self._source.batch(self.step)
        loss = self._update(examples, mx.array(1 - decay(self.step, c.ema_decay)))

        # Prepare the next batch while the device computes this step.
        state = self.model.parameters(), self.optimizer.state, self.averaged.parameters()
        mx.async_eval(*state, loss)
        self.step += 1
        self._next = self.step, self._source.batch(self.step)
        mx.async_eval(*self._next[1])
        mx.eval(*state)

        value = float(loss)
        check_loss(value, self.step, c.state, "learning_rate or max_grad_norm")
        return value

    def _update_all(self, examples: Examples, share: mx.array) -> mx.array:
        """Update weights, optimiser and moving average, and return the loss.

        `share` is the weight of the new weights in the moving average.
        """
        loss, grads = self._loss_and_grad(examples)
        if self.group.size() > 1:
            grads = nn.average_gradients(grads, self.group)
            loss = mx.distributed.all_sum(loss, group=self.group) / self.group.size()

        grads, _ = optim.clip_grad_norm(grads, self.config.max_grad_norm)
        self.optimizer.update(self.model, grads)

        averaged, weights = self.averaged.parameters(), self.model.parameters()
        self.averaged.update(tree_map(lambda e, p: e + share * (p - e), averaged, weights))
        return loss

    def _loss(self, examples: Examples) -> mx.array:
        return losses(self.model, examples).mean()
