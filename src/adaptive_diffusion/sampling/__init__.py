"""Loops that draw: every step, image by image until it is good enough, or as few steps as a target takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .quality import QualityEstimator as QualityEstimator
    from .quality_guided import QualityGuidedSampler as QualityGuidedSampler
    from .standard import StandardSampler as StandardSampler
    from .step_reduction import StepReductionSampler as StepReductionSampler

_HOMES = {  # as the imports above say to type checkers
    "QualityEstimator": "quality",
    "QualityGuidedSampler": "quality_guided",
    "StandardSampler": "standard",
    "StepReductionSampler": "step_reduction",
}

__all__ = [*_HOMES]
__getattr__, __dir__ = lazy(__name__, _HOMES)
