"""Noises whose images are compared with the real images of a domain, not with the model's converged solution."""

from __future__ import annotations

import logging
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusion.guided_model import GuidedModel
from ..encoder.captions import plain_caption
from ..encoder.encoder import Encoder, load_builtin_encoder
from ..encoder.reference import FOLDER, load_reference
from ..metrics.moment_distance import MomentDistance
from .measurement import REAL_UNIT, RealMeasurement
from .noises import FixedNoises, Noises

log = logging.getLogger(__name__)

METRICS = ("real", "real_text")
FEWEST = 32  # images of a part of a batch, at least: below, noise is all there is of it
PICTURES, REAL_PICTURES = 8, 66  # of a batch, where nobody says how many
NOISE_OF_8, NOISE_OF_66 = 5.2, 1.3  # standard deviation of batches' quality, see `python -m benchmarks reward_noise`
COSINE = 0.05  # of image and text, that counts as much as a quality of 1


class RealNoises(Noises):
    """Batches of fixed noises, whose images are compared with the moments of a domain's real images.

    The mean error of a batch is its distance to all the real images, unbiased, see `MomentDistance`. No converged
    solutions are needed, so nothing but the images has to be drawn.

    Args:
        drawing: What is drawn; its domain is the one of the real images.
        metric: `real`, or `real_text`: then an image's error is also less by 0.1 for 0.05 of cosine of the shipped
            encoder between it and the caption of the domain.
        encoder: What encodes images and text; None: the encoder that ships.
        references: Folder of the moments, see `load_reference`; by default those that ship.
        **size: `pictures`, `batches` and `seed`, see `Noises`.

    Raises:
        ValueError: for a value out of range.
        UnusableFile: for a domain without moments of real images by the encoder.
    """

    metrics = METRICS
    measurement = RealMeasurement
    fewest = FEWEST

    def __init__(
        self,
        drawing: GuidedModel,
        *,
        metric: str = "real",
        encoder: Encoder | None = None,
        references: Path = FOLDER,
        **size: int,
    ):
        super().__init__(drawing, metric=metric, **size)
        self._encoder = encoder or load_builtin_encoder()
        self._own = {"encoder": self._encoder, "references": references}
        if self.pictures < FEWEST:
            _warn_of_noise(self.pictures)

        self._real = MomentDistance(load_reference(drawing.domain, self._encoder, references))

    def errors(self, batch: int, states: np.ndarray) -> np.ndarray:
        """What each image adds to the distance of the batch to the real images, see `contributions`.

        Args:
            batch: Number of the batch.
            states: (N, H, W, C) clean states drawn from its noises.

        Returns:
            (N,) float64, of either sign.
        """
        if not np.isfinite(states).all():  # the model or the solver diverges there, as the reward will say
            return np.full(len(states), np.nan)
        contributions = self.contributions(self.features(states))
        if self.metric == "real":
            return contributions

        cosines = self._encoder.scores(self.drawing.images(states), self._caption) / 100
        return contributions + (1 - cosines) / COSINE * REAL_UNIT

    def features(self, states: np.ndarray) -> np.ndarray:
        """(N, d) features of the images that (N, H, W, C) clean states are."""
        return self._encoder.features(self.drawing.images(states))

    def contributions(self, features: np.ndarray) -> np.ndarray:
        """(N,) what images with these (N, d) features add to their distance, see `MomentDistance`."""
        return self._real.contributions(features)

    @cached_property
    def _caption(self) -> str:
        return plain_caption(self.drawing.domain, None)


@cache  # once in a process: held-out noises and those of a verification have the same size
def _warn_of_noise(pictures: int) -> None:
    log.warning(
        "batches of %d images are small to be compared with real ones: from one batch of 8 to the next, the quality "
        "of landscapes varies by %.1f (standard deviation), of %d by %.1f; give pictures=%d",
        pictures,
        NOISE_OF_8,
        REAL_PICTURES,
        NOISE_OF_66,
        REAL_PICTURES,
    )


def noises_for(
    metric: str, drawing: GuidedModel, *, pictures: int | None, batches: int, seed: int, **solving: Any
) -> Noises:
    """The noises that a metric asks for, see `Reward`.

    Args:
        metric: `rmse`, `perceptual`, `real` or `real_text`.
        drawing, pictures, batches, seed: See `Noises`; pictures=None: 8, or 66 to compare with real ones.
        **solving: `tolerance` and `cache`, see `FixedNoises`, where converged solutions are needed.
    """
    if pictures is None:
        pictures = REAL_PICTURES if metric in METRICS else PICTURES
    if metric in METRICS:
        return RealNoises(drawing, pictures=pictures, batches=batches, seed=seed, metric=metric)
    return FixedNoises(drawing, pictures=pictures, batches=batches, seed=seed, metric=metric, **solving)
