"""Training of the encoder; it takes minutes on a CPU.

Two tasks are learned at once. First, an image is matched with the caption of its label among the captions of all
labels; this is CLIP's contrastive loss without its false negatives. Second, images and captions are classified by
domain.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .captions import domain_caption, label_caption
from .encoder import Encoder
from .encoder_corpus import EncoderCorpus, degrade
from .encoder_scores import EncoderScores, measure_scores
from .encoder_training_config import EncoderTraining
from .image_training import ImageTrainer
from .network import EncoderConfig, EncoderNetwork
from .prompt_head import fit_prompt_head
from .words import load_words

SUBJECTS_PER_STEP = 16  # captions of each domain in a training step
VARIANCE = 10.0  # of a feature over the held-out images, in the mean; that of the sharpness is about as large
LOSS_WEIGHTS = {"label": 1.0, "captions": 0.3, "domain": 0.5, "words": 0.5}


class EncoderTrainer(ImageTrainer[EncoderScores]):
    """The state of a training run, and the step that advances it.

    Args:
        config: Settings of the run.

    Raises:
        Unusable: if the data or the state file cannot be used.
    """

    network: EncoderNetwork

    def __init__(self, config: EncoderTraining):
        self.words = load_words()
        self.corpus = EncoderCorpus(config)

        mx.random.seed(config.seed)
        network = EncoderNetwork(
            EncoderConfig(
                tuple(config.data), config.image_size, tuple(config.widths), config.dimension, self.words.dimension
            )
        )

        facts = {"labels": self.corpus.labels, "words": self.words.content_hash}
        super().__init__(config, network, self.corpus.train, facts)

    def encoder(self) -> Encoder:
        """The encoder with the averaged weights, before the head for prompts is fitted (see `finish`)."""
        network = EncoderNetwork(self.network._config)
        network.update(self.ema)
        network.eval()
        return Encoder(network, self.words, {"words_hash": self.words.content_hash})

    def finish(self) -> Encoder:
        """The trained encoder with its head for prompts, and with features of the variance `VARIANCE`.

        The head reads word vectors only, so it is fitted by itself after the training. No loss fixes the length of
        the features, so they are scaled here.
        """
        encoder = self.encoder()
        held = np.concatenate([encoder.features(pictures.images) for pictures in self.corpus.held])
        learned = held[:, : self.config.dimension]
        encoder.network.scale_features(float(np.sqrt(VARIANCE / learned.var(axis=0).mean())))

        labels: dict[str, list[str]] = {domain: [] for domain in self.config.data}
        for domain, name in self.corpus.labels:
            labels[domain].append(name)

        weight, bias = fit_prompt_head(self.words, encoder.config.domains, labels, self.config.seed)
        head = encoder.network.prompt_domain
        head.weight, head.bias = (mx.array(v.astype(np.float32)) for v in (weight, bias))
        return encoder

    def scores(self) -> EncoderScores:
        """Measure the averaged weights on the held-out images."""
        return measure_scores(self.encoder(), self.corpus)

    def _batch(self, step: int) -> tuple[mx.array, ...]:
        """The data of a step.

        Returns:
            (B, H, W, 3) degraded images, their (B,) labels (-1: none) and domains, and the vectors of the captions of
            all labels and of `SUBJECTS_PER_STEP` subjects of each domain.
        """
        images, groups, labels = self._pictures(step)
        rng = np.random.default_rng([self.config.seed, 3, step])
        pictures, labels = degrade(images, rng), self.corpus.numbered(groups, labels)

        label_texts = [label_caption(d, name, rng) for d, name in self.corpus.labels]
        domain_texts = [domain_caption(d, rng) for d in self.config.data for _ in range(SUBJECTS_PER_STEP)]
        arrays = (pictures, labels, groups, self.words.text_vectors(label_texts + domain_texts))
        return tuple(mx.array(a) for a in arrays)

    def _loss(self, *batch: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
        """The weighted loss of the data of `_batch`, and each loss before weighting."""
        pictures, labels, domains, vectors = batch
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
