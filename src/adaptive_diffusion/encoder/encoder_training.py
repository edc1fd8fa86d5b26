"""Training of the encoder: pictures are drawn to the captions of their labels and domains, in minutes on a CPU.

Two things are learned at once. A picture chooses the caption of its label among those of all labels, which is CLIP's
contrastive loss without its false negatives; and a picture and a caption tell their domain.

The state of a run is one file, as of the denoiser's training: everything random is a pure function of the seed and the
step, so a run that was killed continues bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from ..errors import UserError
from ..io.batch_order import BatchOrder
from ..io.pictures import PictureSet, load_pictures
from ..io.pixels import to_float
from ..io.training_state import hash_of, read_state, write_state
from .captions import domain_caption, label_caption
from .encoder import Encoder, EncoderConfig, EncoderNetwork
from .encoder_training_config import EncoderTraining
from .prompt_head import fit_prompt_head
from .words import WordVectors, load_words

SUBJECTS_PER_STEP = 16  # captions of each domain in a training step
WEIGHTS = {"label": 1.0, "captions": 0.3, "domain": 0.5, "words": 0.5}  # of the losses


@dataclass(frozen=True)
class EncoderScores:
    """How the encoder does on held-back pictures and captions, shares in [0, 1].

    Attributes:
        label_top1: Pictures whose label's caption is the nearest of all labels'.
        label_top5: Among the five nearest.
        domain: Accuracy on the pictures of each domain.
        image_temperature: Divisor of the domain logits of pictures that calibrates their confidence.
    """

    label_top1: float
    label_top5: float
    domain: dict[str, float]
    image_temperature: float


@dataclass(frozen=True)
class EncoderEvent:
    """What happened in one step: pictures seen so far, loss of each part, and the scores if measured."""

    images: int
    losses: dict[str, float]
    scores: EncoderScores | None = None


@dataclass
class _Data:
    """Pictures of all domains, with labels numbered across them (-1: none)."""

    train: list[PictureSet] = field(default_factory=list)
    held: list[PictureSet] = field(default_factory=list)
    labels: list[tuple[str, str]] = field(default_factory=list)  # (domain, label)
    offsets: list[int] = field(default_factory=list)


class EncoderTrainer:
    """The state of a run and the step that advances it.

    Args:
        config: The run.

    Raises:
        UserError: if the data or the state file cannot be used.
    """

    def __init__(self, config: EncoderTraining):
        self.config, self.words = config, load_words()
        self.data = _Data()
        for domain, path in config.data.items():
            pictures = load_pictures(path, config.image_size)
            train, held = pictures.split(config.validation_fraction, config.split, config.seed)
            if not len(train) or not len(held):
                raise UserError(f"{domain}: {len(pictures)} pictures are too few to keep some back")
            self.data.offsets.append(len(self.data.labels))
            self.data.labels += [(domain, name) for name in pictures.label_names]
            self.data.train.append(train)
            self.data.held.append(held)
        if not self.data.labels:
            raise UserError("the pictures have no labels; give folders with sub-folders, or arrays with labels")
        mx.random.seed(config.seed)
        self.network = EncoderNetwork(
            EncoderConfig(
                tuple(config.data), config.image_size, tuple(config.widths), config.dimension, self.words.dimension
            )
        )
        self.ema: dict[str, Any] = tree_map(mx.array, self.network.trainable_parameters())
        self.optimizer = optim.AdamW(learning_rate=0.0, betas=[0.9, 0.99], weight_decay=config.weight_decay)
        self.optimizer.init(self.network.trainable_parameters())
        self.step = 0  # optimiser steps done
        self._recipe = self._whole_recipe()
        if Path(config.state).exists():
            self.load_state()
        if self.step > config.steps():
            raise UserError(
                f"the state {config.state} has seen {self.images} pictures already, and task.images is "
                f"{config.images}: give as many or more, or another task.state to start anew"
            )
        self._order = BatchOrder([len(s) for s in self.data.train], config.batch_size, config.seed)
        self._loss_and_grad = nn.value_and_grad(self.network, self._loss)

    @property
    def images(self) -> int:
        """Pictures seen so far."""
        return self.step * self.config.batch_size

    def run(self) -> Iterator[EncoderEvent]:
        """Train to the end, yielding an event per step; the state file is written along the way and at the end."""
        c, steps = self.config, self.config.steps()
        while self.step < steps:
            losses, last = self._advance(), self.step == steps
            scores = self.scores() if last or self._passes(c.validate_every) else None
            if last or self._passes(c.save_every):
                self.save_state()
            yield EncoderEvent(self.images, losses, scores)

    def save_state(self) -> None:
        """Write the state file atomically."""
        write_state(self.config.state, self._recipe, self._trees(), step=self.step)

    def load_state(self) -> None:
        """Continue from the state file, which must come from a run of the same recipe."""
        trees, counts = read_state(self.config.state, self._recipe, self._trees())
        self.network.update(trees["network"])
        self.ema, self.optimizer.state, self.step = trees["ema"], trees["optimizer"], counts["step"]

    def _trees(self) -> dict[str, Any]:
        """All tensors of the state."""
        return {"network": self.network.parameters(), "ema": self.ema, "optimizer": self.optimizer.state}

    def encoder(self) -> Encoder:
        """The encoder with the averaged weights; `finish` gives it its head for prompts."""
        network = EncoderNetwork(self.network._config)
        network.update(self.ema)
        return Encoder(network, self.words, {"words_hash": self.words.content_hash})

    def finish(self) -> Encoder:
        """The encoder with its head for prompts, which is fitted when the rest is trained; it does not depend on it."""
        encoder = self.encoder()
        labels: dict[str, list[str]] = {domain: [] for domain in self.config.data}
        for domain, name in self.data.labels:
            labels[domain].append(name)
        fit_into(encoder.network, self.words, labels, self.config.seed)
        return encoder

    def scores(self) -> EncoderScores:
        """Measure the averaged weights on what was kept back."""
        encoder, data = self.encoder(), self.data
        domains = list(self.config.data)
        captions = encoder.text_embeddings([label_caption(d, name) for d, name in data.labels])
        embeddings = [encoder.image_embeddings(s.images) for s in data.held]
        labels = [np.where(s.labels < 0, -1, s.labels + o) for s, o in zip(data.held, data.offsets, strict=True)]
        e, y = np.concatenate(embeddings), np.concatenate(labels)
        ranks = (-(e @ captions.T)).argsort(axis=1)[y >= 0] == y[y >= 0, None]
        truth = np.repeat(np.arange(len(domains)), [len(s) for s in data.held])
        head = encoder.network.domain
        logits = np.array(head(mx.array(e)))
        right = logits.argmax(axis=1) == truth
        return EncoderScores(
            label_top1=float(ranks[:, :1].any(axis=1).mean()),
            label_top5=float(ranks[:, :5].any(axis=1).mean()),
            domain={d: float(right[truth == i].mean()) for i, d in enumerate(domains)},
            image_temperature=best_temperature(logits, truth),
        )

    def _whole_recipe(self) -> dict[str, Any]:
        """All that decides the result, but for `images`: a finished run may be made longer."""
        free = ("data", "state", "images", "validate_every", "save_every")
        return {
            **{name: value for name, value in asdict(self.config).items() if name not in free},
            "domains": list(self.config.data),
            "labels": self.data.labels,
            "pictures": {
                domain: f"{len(some)} with the hash {hash_of([some.images, some.labels]):.12}"
                for domain, some in zip(self.config.data, self.data.train, strict=True)
            },
            "words": self.words.content_hash,
        }

    def _passes(self, every: int) -> bool:
        """Whether the last step crossed a multiple of `every` pictures."""
        return self.images // every != (self.images - self.config.batch_size) // every

    def _advance(self) -> dict[str, float]:
        """One optimiser step; returns the loss of each part."""
        c, step, steps = self.config, self.step, self.config.steps()
        (_, parts), grads = self._loss_and_grad(*self._batch(step))
        grads, _ = optim.clip_grad_norm(grads, 1.0)
        warm_up = min(1.0, (step + 1) / max(1, steps // 20))
        self.optimizer.learning_rate = c.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / steps))
        self.optimizer.update(self.network, grads)
        decay = min(c.ema_decay, (1 + step) / (10 + step))
        self.ema = tree_map(lambda e, p: e + (1 - decay) * (p - e), self.ema, self.network.trainable_parameters())
        mx.eval(self.network.parameters(), self.optimizer.state, self.ema, parts)
        losses = {name: float(value) for name, value in parts.items()}
        if not math.isfinite(sum(losses.values())):
            raise UserError(
                f"the loss became {losses} at step {step + 1}; the last good state is in {c.state}: "
                "start anew with a smaller task.learning_rate and another task.state"
            )
        self.step += 1
        return losses

    def _batch(self, step: int) -> tuple[mx.array, ...]:
        """Degraded pictures, their labels (-1: none) and domains, and the vectors of the step's captions."""
        groups, rows, mirror = self._order(step)
        rng = np.random.default_rng([self.config.seed, 3, step])
        sets = [self.data.train[g] for g in groups]
        images = np.stack(
            [s.images[r][:, ::-1] if m else s.images[r] for s, r, m in zip(sets, rows, mirror, strict=True)]
        )
        labels = np.array([s.labels[r] for s, r in zip(sets, rows, strict=True)])
        labels = np.where(labels < 0, -1, labels + np.array(self.data.offsets)[groups])
        pictures = degrade(to_float(images), rng)
        label_texts = [label_caption(d, name, rng) for d, name in self.data.labels]
        domain_texts = [domain_caption(d, rng) for d in self.config.data for _ in range(SUBJECTS_PER_STEP)]
        arrays = (pictures, labels, groups, self.words.text_vectors(label_texts + domain_texts))
        return tuple(mx.array(a) for a in arrays)

    def _loss(
        self, pictures: mx.array, labels: mx.array, domains: mx.array, vectors: mx.array
    ) -> tuple[mx.array, dict[str, mx.array]]:
        net, known = self.network, labels >= 0
        e, texts = net.embed_features(net.features(pictures)), net.embed_words(vectors)
        scale = mx.minimum(mx.exp(net.log_scale), 100.0)
        label_count = len(self.data.labels)
        similarity = scale * (e @ texts.T)
        by_label = nn.losses.cross_entropy(similarity[:, :label_count], mx.maximum(labels, 0))
        # the captions of the picture's own domain against those of the others
        by_caption = similarity[:, label_count:].reshape(len(e), -1, SUBJECTS_PER_STEP)
        names = [domain for domain, _ in self.data.labels]
        order = list(self.config.data)
        text_domains = mx.array(
            [order.index(d) for d in names] + [i for i in range(len(order)) for _ in range(SUBJECTS_PER_STEP)]
        )
        parts = {
            "label": (by_label * known).sum() / mx.maximum(known.sum(), 1),
            "captions": nn.losses.cross_entropy(mx.logsumexp(by_caption, axis=-1), domains, reduction="mean"),
            "domain": nn.losses.cross_entropy(net.domain(e), domains, reduction="mean"),
            "words": nn.losses.cross_entropy(net.domain(texts), text_domains, reduction="mean"),
        }
        return sum((WEIGHTS[name] * part for name, part in parts.items()), mx.array(0.0)), parts


def fit_into(network: EncoderNetwork, words: WordVectors, labels: dict[str, list[str]], seed: int) -> None:
    """Fit the head for prompts and put it into a network; `labels` has a list for each of its domains."""
    weight, bias = fit_prompt_head(words, network._config.domains, labels, seed)
    network.prompt_domain.weight, network.prompt_domain.bias = (mx.array(v.astype(np.float32)) for v in (weight, bias))


def degrade(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift, recolour, blur and add noise to pictures, each by a random amount; blur and noise to half of them each.

    Args:
        x: (B, H, W, 3) float32 in [-1, 1].
        rng: Source of the amounts.

    Returns:
        (B, H, W, 3) float32, clipped to [-1, 1].
    """
    B, H, W, _ = x.shape
    reach = max(1, H // 10)
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    corners = rng.integers(0, 2 * reach + 1, (B, 2))
    x = np.stack([p[i : i + H, j : j + W] for p, (i, j) in zip(padded, corners, strict=True)])
    column = (B, 1, 1, 1)
    mean = x.mean(axis=(1, 2), keepdims=True)
    x = mean + (x - mean) * rng.uniform(0.8, 1.2, column) + rng.uniform(-0.1, 0.1, column)
    amounts = rng.random((B, 2)) * (rng.random((B, 2)) < 0.5)
    a = (0.25 * amounts[:, 0]).reshape(column)
    for axis in (1, 2):  # [a, 1 - 2a, a] along both axes
        edge = [(0, 0)] * 4
        edge[axis] = (1, 1)
        p = np.pad(x, edge, mode="edge")
        n = x.shape[axis]
        x = (1 - 2 * a) * x + a * (p.take(range(n), axis) + p.take(range(2, n + 2), axis))
    x = x + 0.2 * amounts[:, 1].reshape(column) * rng.standard_normal(x.shape)
    return np.clip(x, -1, 1).astype(np.float32)


def best_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The divisor of (N, K) logits that makes the (N,) true classes likeliest (Guo et al., 2017)."""

    def loss(temperature: float) -> float:
        z = logits.astype(np.float64) / temperature
        return float((np.logaddexp.reduce(z, axis=1) - z[np.arange(len(z)), truth]).mean())

    return float(min(np.geomspace(0.05, 20, 200), key=loss))
