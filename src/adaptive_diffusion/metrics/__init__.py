"""Quality metrics: distances between sets of features, and the networks that compute the features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from ..encoder.domain import DomainDetector
    from ..encoder.encoder import Encoder, load_builtin_encoder, load_encoder
    from ..encoder.encoder_metrics import EncoderMetrics
    from .clip_score import CLIP, load_clip
    from .frechet import frechet_distance
    from .inception import InceptionV3, load_inception
    from .kid import kernel_distance
    from .lpips import LPIPS, load_lpips
    from .quality import Measurement
    from .standard_metrics import StandardMetrics
    from .statistics import FeatureStatistics

__all__ = [
    "CLIP",
    "LPIPS",
    "DomainDetector",
    "Encoder",
    "EncoderMetrics",
    "FeatureStatistics",
    "InceptionV3",
    "Measurement",
    "StandardMetrics",
    "frechet_distance",
    "kernel_distance",
    "load_builtin_encoder",
    "load_clip",
    "load_encoder",
    "load_inception",
    "load_lpips",
]

# The same names as in the imports above, which only type checkers see.
_HOMES = {
    "CLIP": "clip_score",
    "LPIPS": "lpips",
    "DomainDetector": ".encoder.domain",
    "Encoder": ".encoder.encoder",
    "EncoderMetrics": ".encoder.encoder_metrics",
    "FeatureStatistics": "statistics",
    "InceptionV3": "inception",
    "Measurement": "quality",
    "StandardMetrics": "standard_metrics",
    "frechet_distance": "frechet",
    "kernel_distance": "kid",
    "load_builtin_encoder": ".encoder.encoder",
    "load_clip": "clip_score",
    "load_encoder": ".encoder.encoder",
    "load_inception": "inception",
    "load_lpips": "lpips",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
