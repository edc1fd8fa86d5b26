"""Training of the denoiser, as a generator of events; resumable at any step and data-parallel.

The state of a run is one file: weights, their moving average, the optimiser and the step number. Everything random
(order of the pictures, flips, noise levels, noise, dropped classes) is a pure function of the seed and the step, so a
run that was killed continues bit for bit, and several processes share one global batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from ..diffusion.schedule import NoiseSchedule
from ..errors import UserError
from ..io.batch_order import BatchOrder
from ..io.pixels import to_float
from ..io.training_state import hash_of, read_state, write_state
from .checkpoint import load_model
from .corpus import Corpus, TimestepDistribution
from .training_config import TrainingConfig
from .unet import SimpleUNet, UNetConfig


@dataclass(frozen=True)
class TrainingEvent:
    """What happened in one step.

    Attributes:
        step: Optimiser steps done.
        images: Pictures seen, over all processes and earlier runs of the same state.
        loss: Training loss of the step (weighted mean squared error of the prediction), before the update.
        learning_rate: Learning rate of the step.
        seconds: Duration of the step.
        validation_loss: Loss of the averaged weights on held-back pictures, when it was measured at this step.
    """

    step: int
    images: int
    loss: float
    learning_rate: float
    seconds: float
    validation_loss: float | None = None


class Examples(NamedTuple):
    """A batch: (B, H, W, C) noisy pictures and targets, (B,) timesteps and weights of the loss, (B, K) class ids."""

    noisy: mx.array
    t: mx.array
    classes: mx.array
    target: mx.array
    weight: mx.array


class Trainer:
    """The state of a run and the step that advances it.

    Args:
        config: The run.
        group: Processes that share each batch; by default those that `mlx.launch` started, else this one alone.

    Raises:
        UserError: if the data, the configuration or the state file cannot be used.
    """

    def __init__(self, config: TrainingConfig, group: mx.distributed.Group | None = None):
        self.config = config
        self.group = group or mx.distributed.init()
        if config.batch_size % self.group.size():
            raise UserError(f"batch_size {config.batch_size} must be a multiple of the {self.group.size()} processes")
        self.schedule = NoiseSchedule(**config.noise_schedule)
        self.corpus = Corpus(config)
        self._order = BatchOrder([len(images) for images, _ in self.corpus.train], config.batch_size, config.seed)
        self._timesteps = TimestepDistribution(
            self.schedule, config.log_snr_mean, config.log_snr_std, config.uniform_fraction
        )
        mx.random.seed(config.seed)
        self.model = SimpleUNet(UNetConfig(**config.architecture, num_classes=self.corpus.num_classes))
        self._images_before = 0  # pictures that the weights had seen when this run began
        resumed = Path(config.state).exists()
        if config.start_from is not None and not resumed:
            self._start_from(load_model(config.start_from))
        self.averaged = SimpleUNet(self.model.config)
        self.averaged.update(tree_map(mx.array, self.model.parameters()))
        self.optimizer = optim.Adam(learning_rate=0.0, betas=[0.9, 0.99])
        self.optimizer.init(self.model.trainable_parameters())
        self.step = 0
        self._recipe = self._whole_recipe()
        self._loss_and_grad = nn.value_and_grad(self.model, self._loss)
        self._next: tuple[int, Examples] | None = None
        if resumed:
            self.load_state()
        if self.step > config.steps():
            raise UserError(
                f"the state {config.state} has seen {self.images} pictures already, and task.images is "
                f"{config.images}: give as many or more, or another task.state to start anew"
            )
        state = [self.model.state, self.averaged.state, self.optimizer.state]
        on_gpu = mx.default_device() == mx.gpu  # on the CPU it saves nothing, and wants a compiler
        self._update = mx.compile(self._update_all, inputs=state, outputs=state) if on_gpu else self._update_all

    @property
    def images(self) -> int:
        """Pictures seen so far."""
        return self.step * self.config.batch_size

    def run(self) -> Iterator[TrainingEvent]:
        """Train to the end, yielding an event per step; the state file is written along the way and at the end."""
        c, steps = self.config, self.config.steps()
        while self.step < steps:
            start = time.perf_counter()
            rate = self.learning_rate(self.step)
            loss = self._advance(rate)
            seconds = time.perf_counter() - start
            last = self.step == steps
            validation = self.validation_loss() if last or self.passes(c.validate_every) else None
            if last or self.passes(c.save_every):
                self.save_state()
            yield TrainingEvent(self.step, self.images, loss, rate, seconds, validation)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, constant, linear decay to 0 (trapezoid)."""
        c, done = self.config, (step + 1) * self.config.batch_size
        rise = min(1.0, done / max(c.warmup_images, 1))
        fall = min(1.0, max(c.images - done + c.batch_size, 0) / max(c.decay_images, 1))
        return c.learning_rate * min(rise, fall)

    def ema_model(self) -> SimpleUNet:
        """A copy of the network that carries the averaged weights."""
        model = SimpleUNet(self.model.config)
        model.update(self.averaged.parameters())
        model._metadata = self.metadata()
        return model

    def passes(self, every: int) -> bool:
        """Whether this step crossed a multiple of `every` pictures."""
        return self.images // every != (self.images - self.config.batch_size) // every

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint of this run tells about the model."""
        c = self.config
        return {
            "prediction_type": c.prediction_type,
            "guidance_scale": c.guidance_scale,
            "noise_schedule": c.noise_schedule,
            "domains": list(self.corpus.domains),
            "labels": {domain: list(names) for domain, names in self.corpus.labels.items()},
            "images_seen": self._images_before + self.images,
            "training": {k: v for k, v in asdict(c).items() if k not in ("data", "state", "start_from")},
        }

    def validation_loss(self) -> float:
        """Loss of the averaged weights on held-back pictures; the same pictures, timesteps and noise every time."""
        per_domain = max(1, self.config.validation_images // len(self.corpus.domains))
        pairs = [(images[:per_domain], classes[:per_domain]) for images, classes in self.corpus.validation]
        x0 = to_float(np.concatenate([images for images, _ in pairs]))
        if not len(x0):
            return math.nan
        classes = np.concatenate([c for _, c in pairs])
        t = self._timesteps((np.arange(len(x0)) + 0.5) / len(x0))
        t = np.random.default_rng(0).permutation(t)
        noise = mx.random.normal(x0.shape, key=mx.random.key(0))
        model, total = self.ema_model(), 0.0
        for part in np.array_split(np.arange(len(x0)), math.ceil(len(x0) / 64)):
            of_part = self._examples(mx.array(x0[part]), noise[mx.array(part)], t[part], mx.array(classes[part]))
            total += float(_losses(model, of_part).sum())
        return total / len(x0)

    def save_state(self) -> None:
        """Write the state file atomically (first process only)."""
        if self.group.rank():
            return
        counts = {"step": self.step, "images_before": self._images_before}
        write_state(self.config.state, self._recipe, self._trees(), **counts)

    def load_state(self) -> None:
        """Continue from the state file, which must come from a run of the same recipe."""
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
        """Take over the weights of a trained network of the same architecture."""
        if model.config != self.model.config:
            raise UserError(
                f"start_from={self.config.start_from} has another architecture ({model.config}) than this run "
                f"({self.model.config}); make task.architecture and the labels of the data agree"
            )
        self.model.update(model.parameters())
        self._images_before = model.metadata.get("images_seen", 0)

    def _whole_recipe(self) -> dict[str, Any]:
        """All that decides the result, but for `images`: a finished run may be made longer."""
        c = self.config
        free = ("data", "state", "start_from", "images", "validation_images", "validate_every", "save_every")
        return {
            **{name: value for name, value in asdict(c).items() if name not in free},
            "start_from": None if c.start_from is None else str(Path(c.start_from).absolute()),
            "domains": list(self.corpus.domains),
            "labels": self.corpus.labels,
            "pictures": {
                domain: f"{len(images)} with the hash {hash_of([images, classes]):.12}"
                for domain, (images, classes) in zip(self.corpus.domains, self.corpus.train, strict=True)
            },
        }

    def _advance(self, learning_rate: float) -> float:
        """One optimiser step; returns the loss over the global batch."""
        c = self.config
        self.optimizer.learning_rate = learning_rate
        decay = min(c.ema_decay, (1 + self.step) / (10 + self.step))
        loss = self._update(self._batch(), mx.array(1 - decay))
        state = self.model.parameters(), self.optimizer.state, self.averaged.parameters()
        mx.async_eval(*state, loss)
        self.step += 1
        self._prepare()  # while this step is computed
        mx.eval(*state)
        if not math.isfinite(value := float(loss)):
            raise UserError(
                f"the loss became {value} at step {self.step}; the last good state is in {c.state}: "
                "start anew with a smaller task.learning_rate or task.max_grad_norm, and another task.state"
            )
        return value

    def _update_all(self, examples: Examples, share: mx.array) -> mx.array:
        """Update weights, optimiser and moving average (the new weights' share of it is `share`); returns the loss."""
        loss, grads = self._loss_and_grad(examples)
        if self.group.size() > 1:
            grads = nn.average_gradients(grads, self.group)
            loss = mx.distributed.all_sum(loss, group=self.group) / self.group.size()
        grads, _ = optim.clip_grad_norm(grads, self.config.max_grad_norm)
        self.optimizer.update(self.model, grads)
        averaged, weights = self.averaged.parameters(), self.model.parameters()
        self.averaged.update(tree_map(lambda e, p: e + share * (p - e), averaged, weights))
        return loss

    def _batch(self) -> Examples:
        """This process's share of the next batch."""
        if self._next is None or self._next[0] != self.step:
            self._prepare()
        assert self._next is not None
        return self._next[1]

    def _prepare(self) -> None:
        examples = self._examples(*self._drawn())
        mx.async_eval(*examples)
        self._next = self.step, examples

    def _drawn(self) -> tuple[mx.array, mx.array, np.ndarray, mx.array]:
        """What that share is made from: x0, noise, timesteps, classes."""
        c, B = self.config, self.config.batch_size
        groups, rows, mirror = self._order(self.step)
        mine = slice(self.group.rank(), B, self.group.size())
        rng = np.random.default_rng([c.seed, 2, self.step])
        t = self._timesteps(rng.permutation((np.arange(B) + rng.random()) / B))  # stratified over the batch
        hidden = rng.random(B)
        noise = mx.random.normal(
            (B, *self._picture_shape), key=mx.random.split(mx.random.key(c.seed), 2)[1] ^ self.step
        )
        pictures, classes = [], []
        for g, r, flip in zip(groups[mine], rows[mine], mirror[mine], strict=True):
            images, ids = self.corpus.train[g]
            pictures.append(images[r][:, ::-1] if flip else images[r])
            classes.append(ids[r])
        shown = np.array(classes)
        shown[hidden[mine] < c.drop_all + c.drop_label, 1] = 0
        shown[hidden[mine] < c.drop_all] = 0
        return mx.array(to_float(np.stack(pictures))), noise[mine], t[mine], mx.array(shown)

    @property
    def _picture_shape(self) -> tuple[int, int, int]:
        a = self.model.config
        return a.image_size, a.image_size, a.in_channels

    def _examples(self, x0: mx.array, noise: mx.array, t: np.ndarray, classes: mx.array) -> Examples:
        """What the network is shown, and what it is to say."""
        schedule, v = self.schedule, self.config.prediction_type == "v_prediction"
        target = schedule.velocity(x0, noise, t) if v else noise
        if (gamma := self.config.min_snr_gamma) is None:
            weight = np.ones(len(t))
        else:
            snr = np.exp(2 * schedule.log_snr(t))
            weight = np.minimum(snr, gamma) / (snr + 1 if v else snr)  # Hang et al., 2023
        noisy = schedule.add_noise(x0, noise, t)
        return Examples(noisy, mx.array(t.astype(np.float32)), classes, target, mx.array(weight.astype(np.float32)))

    def _loss(self, examples: Examples) -> mx.array:
        return _losses(self.model, examples).mean()


def _losses(model: SimpleUNet, examples: Examples) -> mx.array:
    """(B,) weighted mean squared errors of the prediction."""
    prediction = model(examples.noisy, examples.t, examples.classes)
    return examples.weight * (prediction - examples.target).square().mean(axis=(1, 2, 3))
