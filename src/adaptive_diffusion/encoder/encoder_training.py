"""Training of the encoder; it takes minutes on a CPU.

Two tasks are learned at once. First, an image is matched with the caption of its label among the captions of all
labels; this is CLIP's contrastive loss without its false negatives. Second, images and captions are classified by
domain.

The state of a run is one file. Everything random is a pure function of the seed and the step, so a killed run continues
bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from ..errors import UnusableFile
from ..io.batch_order import BatchOrder
from ..io.pixels import to_float
from ..io.training_state import hash_of, read_state, write_state
from .captions import domain_caption, label_caption
from .encoder import Encoder
from .encoder_corpus import EncoderCorpus, degrade
from .encoder_scores import EncoderScores, measure_scores
from .encoder_training_config import EncoderTraining
from .network import EncoderConfig, EncoderNetwork
from .prompt_head import fit_prompt_head
from .words import WordVectors, load_words

SUBJECTS_PER_STEP = 16  # captions of each domain in a training step
LOSS_WEIGHTS = {"label": 1.0, "captions": 0.3, "domain": 0.5, "words": 0.5}


@dataclass(frozen=True)
class EncoderEvent:
    """One step of the training.

    Attributes:
        images: Images seen so far.
        losses: Each loss before weighting, by the keys of `LOSS_WEIGHTS`.
        scores: Scores of the averaged weights, if they were measured at this step.
    """

    images: int
    losses: dict[str, float]
    scores: EncoderScores | None = None


class EncoderTrainer:
    """The state of a training run, and the step that advances it.

    Args:
        config: Settings of the run.

    Raises:
        UnusableFile: if the data or the state file cannot be used.
    """

    def __init__(self, config: EncoderTraining):
        self.config, self.words = config, load_words()
        self.corpus = EncoderCorpus(config)

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
            raise UnusableFile(
                f"the state {config.state} has seen {self.images} images already, and images is "
                f"{config.images}: give as many or more, or another state to start anew"
            )

        self._order = BatchOrder([len(s) for s in self.corpus.train], config.batch_size, config.seed)
        self._loss_and_grad = nn.value_and_grad(self.network, self._loss)

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.step * self.config.batch_size

    def run(self) -> Iterator[EncoderEvent]:
        """Train to the end and yield an event per step.

        The state file is written every `save_every` images and at the end.
        """
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
        """Continue from the state file of a run with the same recipe.

        Raises:
            UnusableFile: if the file is damaged or has another recipe.
        """
        trees, counts = read_state(self.config.state, self._recipe, self._trees())
        self.network.update(trees["network"])
        self.ema, self.optimizer.state, self.step = trees["ema"], trees["optimizer"], counts["step"]

    def _trees(self) -> dict[str, Any]:
        """All tensors of the state."""
        return {"network": self.network.parameters(), "ema": self.ema, "optimizer": self.optimizer.state}

    def encoder(self) -> Encoder:
        """The encoder with the averaged weights, before the head for prompts is fitted (see `finish`)."""
        network = EncoderNetwork(self.network._config)
        network.update(self.ema)
        return Encoder(network, self.words, {"words_hash": self.words.content_hash})

    def finish(self) -> Encoder:
        """The trained encoder with its head for prompts.

        The head reads word vectors only, so it is fitted by itself after the training.
        """
        encoder = self.encoder()
        labels: dict[str, list[str]] = {domain: [] for domain in self.config.data}
        for domain, name in self.corpus.labels:
            labels[domain].append(name)

        fit_into(encoder.network, self.words, labels, self.config.seed)
        return encoder

    def scores(self) -> EncoderScores:
        """Measure the averaged weights on the held-out images."""
        return measure_scores(self.encoder(), self.corpus)

    def _whole_recipe(self) -> dict[str, Any]:
        """All settings and data that decide the result, except `images`: a finished run may be made longer."""
        free = ("data", "state", "images", "validate_every", "save_every")
        return {
            **{name: value for name, value in asdict(self.config).items() if name not in free},
            "domains": list(self.config.data),
            "labels": self.corpus.labels,
            "pictures": {
                domain: f"{len(pictures)} with the hash {hash_of([pictures.images, pictures.labels]):.12}"
                for domain, pictures in zip(self.config.data, self.corpus.train, strict=True)
            },
            "words": self.words.content_hash,
        }

    def _passes(self, every: int) -> bool:
        """Whether the last step crossed a multiple of `every` images."""
        return self.images // every != (self.images - self.config.batch_size) // every

    def _advance(self) -> dict[str, float]:
        """Do one optimiser step and return each loss before weighting."""
        c, step, steps = self.config, self.step, self.config.steps()
        (_, unweighted), grads = self._loss_and_grad(*self._batch(step))
        grads, _ = optim.clip_grad_norm(grads, 1.0)

        warm_up = min(1.0, (step + 1) / max(1, steps // 20))
        self.optimizer.learning_rate = c.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / steps))
        self.optimizer.update(self.network, grads)

        # The average begins with a short memory, so that the random first weights do not stay in it.
        decay = min(c.ema_decay, (1 + step) / (10 + step))
        self.ema = tree_map(lambda e, p: e + (1 - decay) * (p - e), self.ema, self.network.trainable_parameters())
        mx.eval(self.network.parameters(), self.optimizer.state, self.ema, unweighted)

        losses = {name: float(value) for name, value in unweighted.items()}
        if not math.isfinite(sum(losses.values())):
            raise FloatingPointError(
                f"the loss became {losses} at step {step + 1}; the last good state is in {c.state}: "
                "start anew with a smaller learning_rate and another state"
            )

        self.step += 1
        return losses

    def _batch(self, step: int) -> tuple[mx.array, ...]:
        """The data of a step.

        Returns:
            (B, H, W, 3) degraded images, their (B,) labels (-1: none) and domains, and the vectors of the captions of
            all labels and of `SUBJECTS_PER_STEP` subjects of each domain.
        """
        groups, rows, mirror = self._order(step)
        rng = np.random.default_rng([self.config.seed, 3, step])

        sets = [self.corpus.train[g] for g in groups]
        images = np.stack(
            [s.images[r][:, ::-1] if m else s.images[r] for s, r, m in zip(sets, rows, mirror, strict=True)]
        )
        labels = self.corpus.numbered(groups, np.array([s.labels[r] for s, r in zip(sets, rows, strict=True)]))
        pictures = degrade(to_float(images), rng)

        label_texts = [label_caption(d, name, rng) for d, name in self.corpus.labels]
        domain_texts = [domain_caption(d, rng) for d in self.config.data for _ in range(SUBJECTS_PER_STEP)]
        arrays = (pictures, labels, groups, self.words.text_vectors(label_texts + domain_texts))
        return tuple(mx.array(a) for a in arrays)

    def _loss(
        self, pictures: mx.array, labels: mx.array, domains: mx.array, vectors: mx.array
    ) -> tuple[mx.array, dict[str, mx.array]]:
        """The weighted loss of the data of `_batch`, and each loss before weighting."""
        net, known = self.network, labels >= 0
        e, texts = net.embed_features(net.features(pictures)), net.embed_words(vectors)
        scale = mx.minimum(mx.exp(net.log_scale), 100.0)
        label_count = len(self.corpus.labels)
        similarity = scale * (e @ texts.T)  # (B, captions of labels, then captions of domains)

        by_label = nn.losses.cross_entropy(similarity[:, :label_count], mx.maximum(labels, 0))
        # (B, domains, captions): the captions of the image's own domain compete with those of all other domains.
        by_caption = similarity[:, label_count:].reshape(len(e), -1, SUBJECTS_PER_STEP)

        names = [domain for domain, _ in self.corpus.labels]
        order = list(self.config.data)
        text_domains = mx.array(
            [order.index(d) for d in names] + [i for i in range(len(order)) for _ in range(SUBJECTS_PER_STEP)]
        )

        losses = {
            "label": (by_label * known).sum() / mx.maximum(known.sum(), 1),
            "captions": nn.losses.cross_entropy(mx.logsumexp(by_caption, axis=-1), domains, reduction="mean"),
            "domain": nn.losses.cross_entropy(net.domain(e), domains, reduction="mean"),
            "words": nn.losses.cross_entropy(net.domain(texts), text_domains, reduction="mean"),
        }
        return sum((LOSS_WEIGHTS[name] * loss for name, loss in losses.items()), mx.array(0.0)), losses


def fit_into(network: EncoderNetwork, words: WordVectors, labels: dict[str, list[str]], seed: int) -> None:
    """Fit the head for prompts and put it into a network; `labels` has the labels of each of its domains."""
    weight, bias = fit_prompt_head(words, network._config.domains, labels, seed)
    network.prompt_domain.weight, network.prompt_domain.bias = (mx.array(v.astype(np.float32)) for v in (weight, bias))
