"""The second encoder of a cell: real images of its domain by an encoder that was trained without labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..metrics.features import FeatureEncoder
from ..metrics.frechet import frechet_distance
from ..metrics.precision_recall import ClusterReference
from ..metrics.statistics import FeatureStatistics


@dataclass(frozen=True)
class SecondEncoder:
    """An encoder, and the real images of a domain by it.

    Attributes:
        encoder: Gives the features.
        statistics: Of the real images.
        clusters: Of the real images.
    """

    encoder: FeatureEncoder
    statistics: FeatureStatistics
    clusters: ClusterReference

    @property
    def name(self) -> str:
        """Name and hash of the encoder."""
        return f"{self.encoder.name} {self.encoder.content_hash}"

    @property
    def identity(self) -> list[str]:
        """What decides the measures: name and hash of the encoder, hash of what is known of the real images."""
        known = (self.statistics.mean, self.statistics.covariance, self.clusters.centres, self.clusters.radii)
        arrays = (*known, self.clusters.shares, np.array(self.clusters.n))
        return [self.name, hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()]

    def measure(self, features: Any) -> dict[str, float]:
        """`fd_vicreg`, `precision` and `recall` of (n, d) features, n >= 2."""
        own = FeatureStatistics.from_features(features, self.encoder.name, self.encoder.content_hash)
        return {
            "fd_vicreg": frechet_distance(own, self.statistics),
            "precision": self.clusters.precision(features),
            "recall": self.clusters.recall(features),
        }
