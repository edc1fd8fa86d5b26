"""Detection of the domain of an image or of a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from .encoder import Encoder, load_builtin_encoder
from .named_labels import named_labels, says_no_more, without_quality
from .words import WordVectors

UNSURE = 0.5  # confidence below which the answer is `general`
CLOSE = 0.75  # least cosine of two word vectors at which a phrase of a prompt names a label
NAMED = 50.0  # factor on the probability of a domain if the prompt names one of its labels among other words
_LONGEST = 3  # words in the longest phrase


@dataclass(frozen=True)
class Detection:
    """A detected domain.

    Attributes:
        domain: The likeliest domain, or `general` if its probability is below `UNSURE`.
        confidence: Calibrated probability of the likeliest domain, in [0, 1].
        probabilities: Probability of every domain; they add up to 1.
    """

    domain: str
    confidence: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Choice:
    """The class of a model that a prompt asks for.

    Attributes:
        domain: The domain.
        domain_confidence: Its calibrated probability, in [0, 1], 1 where the prompt is a label alone; None if the
            encoder does not know the domain.
        label: The label of the domain that a phrase of the prompt names; None if no label is close.
        label_confidence: Cosine of the word vectors of the closest label and phrase: 1 for the same words, 0 for a
            domain without labels.
        understood: Whether any word of the prompt is known; else it has decided nothing.
    """

    domain: str
    domain_confidence: float | None
    label: str | None
    label_confidence: float
    understood: bool = True


class DomainDetector:
    """Detects domains with the two heads of the encoder, one for images and one for prompts.

    Args:
        encoder: The encoder; None: the shipped encoder.
    """

    def __init__(self, encoder: Encoder | None = None):
        self.encoder = encoder or load_builtin_encoder()

    def from_images(self, images: Any) -> list[Detection]:
        """Detect the domain of each image.

        Args:
            images: (N, H, W, 3), uint8 or float in [-1, 1].

        Raises:
            ValueError: for unfit images, see `pictures.check_pictures`.
        """
        logits = self.encoder.network.domain(mx.array(self.encoder.image_embeddings(images)))
        return self._detect(np.array(logits, np.float64) / self.encoder.metadata.get("image_temperature", 1.0))

    def from_set(self, images: Any) -> Detection:
        """Detect the one domain of images that belong together, by their mean probabilities; see `from_images`."""
        return self._detection(np.mean([list(one.probabilities.values()) for one in self.from_images(images)], axis=0))

    def agreement(self, images: Any, domain: str) -> float:
        """Share of the images that are taken for a domain; arguments as for `from_images`."""
        return float(np.mean([found.domain == domain for found in self.from_images(images)]))

    def from_prompt(self, prompt: str) -> Detection:
        """Detect the domain of a prompt.

        Raises:
            ValueError: for a prompt without a word.
        """
        words = self.encoder.words
        motif = without_quality(prompt)
        prompt = motif if words.has_meaning(motif) else prompt
        vectors = words.text_vectors([prompt])

        # The spelling of unknown words says nothing about a domain: all domains are equally likely.
        if not words.knows(prompt):
            return self._detect(np.zeros((1, len(self.encoder.config.domains))))[0]

        return self._detect(np.array(self.encoder.network.prompt_domain(mx.array(vectors)), np.float64))[0]

    def choose(self, prompt: str, labels: Mapping[str, Sequence[str]], domain: str | None = None) -> Choice:
        """Choose the domain and the label that fit a prompt best.

        Labels that stand in the prompt come first. A prompt of a label alone is decided by this label; among other
        words, a label makes its domain `NAMED` times as likely.

        Args:
            prompt: E.g. "a butterfly".
            labels: Domains of the model, and the labels of each.
            domain: The domain, if the user chose it; None: the likeliest of the domains in `labels`.

        Raises:
            ValueError: for a prompt without a word, or without a domain to choose from.
        """
        named = named_labels(prompt, labels if domain is None else {domain: labels.get(domain, ())})
        if named and says_no_more(prompt, named):
            return Choice(named[0].domain, 1.0, named[0].label, 1.0)

        detection = self.from_prompt(prompt)
        probabilities = detection.probabilities

        # The label that is named best may belong to a domain that the encoder does not know.
        if domain is None and named and named[0].domain not in probabilities:
            domain = named[0].domain

        if domain is None and named:
            domains = {one.domain for one in named}
            weighted = {d: p * (NAMED if d in domains else 1) for d, p in probabilities.items()}
            detection = self._detection(np.array(list(weighted.values())) / sum(weighted.values()))
            probabilities = detection.probabilities

        if domain is None:
            if not labels:
                raise ValueError(
                    "the model names no domains for the prompt to choose from; leave the prompt out, or give the domain"
                )
            # The encoder may know domains that the model lacks.
            known = {d: p for d, p in probabilities.items() if d in labels} or dict.fromkeys(labels, 0.0)
            domain = detection.domain if detection.domain in labels else max(known, key=lambda d: known[d])

        confidence = probabilities.get(domain)
        if label := next((one.label for one in named if one.domain == domain), None):
            return Choice(domain, confidence, label, 1.0)

        words = self.encoder.words
        understood = bool(named) or words.knows(prompt)
        names = list(labels.get(domain, ()))
        if not names:
            return Choice(domain, confidence, None, 0.0, understood)

        # No label stands in the prompt: take the label whose meaning is closest to a phrase.
        closeness = (words.text_vectors(_phrases(prompt, words)) @ words.text_vectors(names).T).max(axis=0)
        best = int(closeness.argmax())
        label = names[best] if closeness[best] >= CLOSE else None
        return Choice(domain, confidence, label, float(closeness[best]), understood)

    def _detect(self, logits: np.ndarray) -> list[Detection]:
        """Detections from the (N, D) logits of the domains, by a softmax."""
        return [self._detection(row) for row in np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))]

    def _detection(self, shares: np.ndarray) -> Detection:
        """The detection from the (D,) probabilities of the domains."""
        domains, best = self.encoder.config.domains, int(shares.argmax())
        sure = shares[best] >= UNSURE or "general" not in domains
        domain = domains[best] if sure else "general"
        return Detection(domain, float(shares[best]), dict(zip(domains, map(float, shares), strict=True)))


def _phrases(prompt: str, words: WordVectors) -> list[str]:
    """All phrases of one to three words with a meaning; the whole prompt if it has no such phrase."""
    tokens = re.findall(r"[^\W\d_]+", prompt)
    runs = [tokens[i : i + n] for n in range(1, _LONGEST + 1) for i in range(len(tokens) - n + 1)]
    return [" ".join(run) for run in runs if words.has_meaning(" ".join(run))] or [prompt]
