"""Quality metrics: distances between sets of features, and the networks that compute the features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from ..encoder.domain import DomainDetector as DomainDetector
    from ..encoder.encoder import Encoder as Encoder
    from ..encoder.encoder import load_builtin_encoder as load_builtin_encoder
    from ..encoder.encoder import load_encoder as load_encoder
    from ..encoder.encoder_metrics import EncoderMetrics as EncoderMetrics
    from .clip_score import CLIP as CLIP
    from .clip_score import load_clip as load_clip
    from .frechet import frechet_distance as frechet_distance
    from .inception import InceptionV3 as InceptionV3
    from .inception import load_inception as load_inception
    from .kid import kernel_distance as kernel_distance
    from .lpips import LPIPS as LPIPS
    from .lpips import load_lpips as load_lpips
    from .quality import Measurement as Measurement
    from .standard_metrics import StandardMetrics as StandardMetrics
    from .statistics import FeatureStatistics as FeatureStatistics

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

__all__ = [*_HOMES]
__getattr__, __dir__ = lazy(__name__, _HOMES)
