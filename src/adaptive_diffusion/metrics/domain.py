"""DomainDetector: what kind of picture this is, or what kind a prompt asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from .captions import label_caption
from .encoder import Encoder, load_builtin_encoder

UNSURE = 0.5  # confidence below which the answer is `general`
LABEL_SCALE = 20.0  # sharpness of the choice among labels


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
        label: A label of the domain, or None where no label is at least `UNSURE` likely.
        label_confidence: Share of the likeliest label among those of its domain, in [0, 1]; 0 without labels.
    """

    domain: str
    domain_confidence: float
    label: str | None
    label_confidence: float


class DomainDetector:
    """Tells domains by the encoder's domain head, which pictures and captions share.

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
        return self._detect(self.encoder.image_embeddings(images), "image_temperature")

    def from_prompt(self, prompt: str) -> Detection:
        """The domain that a prompt asks for.

        Raises:
            ValueError: for a prompt without a word.
        """
        return self._detect(self.encoder.text_embeddings([prompt]), "text_temperature")[0]

    def choose(self, prompt: str, labels: Mapping[str, Sequence[str]], domain: str | None = None) -> Choice:
        """Domain and label that a prompt asks for.

        Args:
            prompt: E.g. "a butterfly".
            labels: Domains that a model knows, and the labels of each.
            domain: The domain, where it is known; None: detected, among those of the model.

        Raises:
            ValueError: for a prompt without a word.
        """
        detection = self.from_prompt(prompt)
        probabilities = detection.probabilities
        if domain is None:
            known = {d: p for d, p in probabilities.items() if d in labels} or dict.fromkeys(labels, 0.0)
            domain = detection.domain if detection.domain in labels else max(known, key=lambda d: known[d])
        confidence = probabilities.get(domain, 0.0)
        names = list(labels.get(domain, ()))
        if not names:
            return Choice(domain, confidence, None, 0.0)
        captions = self.encoder.text_embeddings([label_caption(domain, name) for name in names])
        z = LABEL_SCALE * captions @ self.encoder.text_embeddings([prompt])[0]
        shares = np.exp(z - np.logaddexp.reduce(z))
        best = int(shares.argmax())
        label = names[best] if shares[best] >= UNSURE else None
        return Choice(domain, confidence, label, float(shares[best]))

    def _detect(self, embeddings: np.ndarray, temperature: str) -> list[Detection]:
        head, domains = self.encoder.network.domain, self.encoder.config.domains
        z = np.array(head(mx.array(embeddings)), np.float64) / self.encoder.metadata.get(temperature, 1.0)
        shares = np.exp(z - np.logaddexp.reduce(z, axis=1, keepdims=True))
        found = []
        for row in shares:
            best = int(row.argmax())
            sure = row[best] >= UNSURE or "general" not in domains
            domain = domains[best] if sure else "general"
            found.append(Detection(domain, float(row[best]), dict(zip(domains, map(float, row), strict=True))))
        return found
