"""Scores of the encoder on held-out images."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from .captions import label_caption
from .encoder import Encoder
from .encoder_corpus import EncoderCorpus


@dataclass(frozen=True)
class EncoderScores:
    """Scores of the encoder on held-out images and captions, shares in [0, 1].

    Attributes:
        label_top1: Images whose nearest caption is the caption of their own label.
        label_top5: Images with the caption of their own label among the five nearest.
        domain: Accuracy on the images of each domain.
        image_temperature: Divisor of the domain logits of images, so that their confidence is calibrated.
    """

    label_top1: float
    label_top5: float
    domain: dict[str, float]
    image_temperature: float


def measure_scores(encoder: Encoder, corpus: EncoderCorpus) -> EncoderScores:
    """Measure an encoder on the held-out images of a corpus."""
    # Rank the captions of all labels for each image that has a label.
    captions = encoder.text_embeddings([label_caption(domain, name) for domain, name in corpus.labels])
    e = np.concatenate([encoder.image_embeddings(images.images) for images in corpus.held])
    y = np.concatenate([corpus.numbered(domain, images.labels) for domain, images in enumerate(corpus.held)])
    ranks = (-(e @ captions.T)).argsort(axis=1)[y >= 0] == y[y >= 0, None]  # (N, labels), True at the own label

    truth = np.repeat(np.arange(len(corpus.held)), [len(images) for images in corpus.held])
    logits = np.array(encoder.network.domain(mx.array(e)))
    right = logits.argmax(axis=1) == truth

    return EncoderScores(
        label_top1=float(ranks[:, :1].any(axis=1).mean()),
        label_top5=float(ranks[:, :5].any(axis=1).mean()),
        domain={domain: float(right[truth == i].mean()) for i, domain in enumerate(corpus.domains)},
        image_temperature=best_temperature(logits, truth),
    )


def best_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The divisor of (N, K) logits with the greatest likelihood of the (N,) true classes (Guo et al., 2017)."""

    def loss(temperature: float) -> float:
        z = logits.astype(np.float64) / temperature
        return float((np.logaddexp.reduce(z, axis=1) - z[np.arange(len(z)), truth]).mean())

    return float(min(np.geomspace(0.05, 20, 200), key=loss))
