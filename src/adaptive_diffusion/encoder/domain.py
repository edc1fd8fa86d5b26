"""DomainDetector: what kind of picture this is, or what kind a prompt asks for."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import UserError
from ..types import PictureModel
from .encoder import Encoder, load_builtin_encoder
from .named_labels import named_labels, says_no_more, without_quality
from .words import WordVectors

log = logging.getLogger(__name__)

UNSURE = 0.5  # confidence below which the answer is `general`
CLOSE = 0.75  # cosine of word vectors from which on a phrase of a prompt names a label
NAMED = 50.0  # times that a domain is likelier if the prompt names one of its labels among other words
_LONGEST = 3  # words of a phrase


@dataclass(frozen=True)
class Detection:
    """A detected domain.

    Attributes:
        domain: The domain; `general` where no other is at least `UNSURE` likely.
        confidence: Calibrated probability of `domain`, in [0, 1]; where unsure, of the best guess.
        probabilities: Of every domain; they add up to 1.
    """

    domain: str
    confidence: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Choice:
    """What of a model's classes a prompt asks for.

    Attributes:
        domain: The domain.
        domain_confidence: Its calibrated probability, in [0, 1].
        label: The label of the domain that a phrase of the prompt names, or None where none is close.
        label_confidence: Cosine of the word vectors of the closest label and phrase, 1 for the same words; 0 without
            labels.
    """

    domain: str
    domain_confidence: float
    label: str | None
    label_confidence: float


class DomainDetector:
    """Tells domains by the encoder's heads for pictures and for prompts.

    Args:
        encoder: The encoder; None: the one that ships with the project.
    """

    def __init__(self, encoder: Encoder | None = None):
        self.encoder = encoder or load_builtin_encoder()

    def from_images(self, images: Any) -> list[Detection]:
        """The domain of each picture, (N, H, W, 3), uint8 or float in [-1, 1].

        Raises:
            ValueError: for unfit pictures, see `pictures.check_pictures`.
        """
        logits = self.encoder.network.domain(mx.array(self.encoder.image_embeddings(images)))
        return self._detect(np.array(logits, np.float64) / self.encoder.metadata.get("image_temperature", 1.0))

    def from_prompt(self, prompt: str) -> Detection:
        """The domain that a prompt asks for.

        Raises:
            ValueError: for a prompt without a word.
        """
        motif = without_quality(prompt)
        prompt = motif if self.encoder.words.has_meaning(motif) else prompt
        vectors = self.encoder.words.text_vectors([prompt])
        if not self.encoder.words.knows(prompt):  # spelling alone says nothing
            return self._detect(np.zeros((1, len(self.encoder.config.domains))))[0]
        return self._detect(np.array(self.encoder.network.prompt_domain(mx.array(vectors)), np.float64))[0]

    def choose(self, prompt: str, labels: Mapping[str, Sequence[str]], domain: str | None = None) -> Choice:
        """Domain and label that a prompt asks for.

        A label that the prompt names is looked up before its sentence is understood: it is what is wanted where the
        prompt says nothing else, and makes its domain likelier where it does.

        Args:
            prompt: E.g. "a butterfly".
            labels: Domains that a model knows, and the labels of each.
            domain: The domain, where it is known; None: detected, among those of the model.

        Raises:
            ValueError: for a prompt without a word.
        """
        named = named_labels(prompt, labels if domain is None else {domain: labels.get(domain, ())})
        if named and says_no_more(prompt, named):
            return Choice(named[0].domain, 1.0, named[0].label, 1.0)
        detection = self.from_prompt(prompt)
        probabilities = detection.probabilities
        if domain is None and named:
            domains = {one.domain for one in named}
            weighted = {d: p * (NAMED if d in domains else 1) for d, p in probabilities.items()}
            detection = self._detection(np.array(list(weighted.values())) / sum(weighted.values()))
            probabilities = detection.probabilities
        if domain is None:
            known = {d: p for d, p in probabilities.items() if d in labels} or dict.fromkeys(labels, 0.0)
            domain = detection.domain if detection.domain in labels else max(known, key=lambda d: known[d])
        confidence = probabilities.get(domain, 0.0)
        if label := next((one.label for one in named if one.domain == domain), None):
            return Choice(domain, confidence, label, 1.0)
        names = list(labels.get(domain, ()))
        if not names:
            return Choice(domain, confidence, None, 0.0)
        words = self.encoder.words
        closeness = (words.text_vectors(_phrases(prompt, words)) @ words.text_vectors(names).T).max(axis=0)
        best = int(closeness.argmax())
        label = names[best] if closeness[best] >= CLOSE else None
        return Choice(domain, confidence, label, float(closeness[best]))

    def _detect(self, logits: np.ndarray) -> list[Detection]:
        return [self._detection(row) for row in np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))]

    def _detection(self, shares: np.ndarray) -> Detection:
        """What the probabilities of all domains, (D,), say."""
        domains, best = self.encoder.config.domains, int(shares.argmax())
        sure = shares[best] >= UNSURE or "general" not in domains
        domain = domains[best] if sure else "general"
        return Detection(domain, float(shares[best]), dict(zip(domains, map(float, shares), strict=True)))


def _phrases(prompt: str, words: WordVectors) -> list[str]:
    """All runs of one to three words of a prompt that mean something; the whole prompt if none does."""
    found = re.findall(r"[^\W\d_]+", prompt)
    runs = [found[i : i + n] for n in range(1, _LONGEST + 1) for i in range(len(found) - n + 1)]
    return [" ".join(run) for run in runs if words.has_meaning(" ".join(run))] or [prompt]


def choose(prompt: str, model: PictureModel, domain: str | None) -> Choice:
    """Domain and label for a prompt, among those of the model; any domain, and no label, for a model that reads."""
    detector = DomainDetector()
    reads = model.domains is None
    domains = dict.fromkeys(detector.encoder.config.domains, ()) if model.domains is None else model.domains
    try:
        return detector.choose(prompt, domains, domain)
    except ValueError as error:
        if not reads:
            raise UserError(f"prompt: {error}") from error
        log.warning("the domain of the prompt cannot be told (%s)", error)
        return Choice(domain or "general", 1.0 if domain else 0.0, None, 0.0)
