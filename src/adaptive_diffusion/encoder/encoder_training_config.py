"""The settings of a training run of the encoder."""

from __future__ import annotations

from dataclasses import dataclass

from .captions import SUBJECTS
from .image_training import ImageTraining
from .network import EncoderConfig


@dataclass(frozen=True)
class EncoderTraining(ImageTraining):
    """One training run; every field is a key of `conf/task/encoder.yaml`.

    Attributes as of `ImageTraining`; `dimension` is the width of the shared space too.

    Raises:
        ValueError: for a value out of range, also for the network, or unknown or too few domains.
    """

    def __post_init__(self) -> None:
        unknown = sorted(set(self.data) - set(SUBJECTS))
        if unknown or len(self.data) < 2:
            given = ", ".join(self.data) or "none"
            raise ValueError(f"data must name at least two of the domains {', '.join(SUBJECTS)}, got {given}")

        super().__post_init__()
        # Refuses widths that do not fit the image size.
        EncoderConfig(tuple(self.data), self.image_size, tuple(self.widths), self.dimension, word_dimension=1)
