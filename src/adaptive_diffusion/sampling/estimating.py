"""What samplers share that estimate the quality of their images on the way."""

from __future__ import annotations

import logging
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_count
from ..diffusion.rng import image_keys, normal
from ..io.pixels import resize, to_float
from ..schedulers.core import SchedulerCore
from ..types import Denoiser, is_picture_model
from .quality import QualityEstimator, content_of
from .standard import StandardSampler

log = logging.getLogger(__name__)


class EstimatingSampler(StandardSampler):
    """A sampling loop with a `QualityEstimator` and a memory of what that said.

    Args:
        scheduler: Grid and solver, with its timesteps set.
        calibration: See `QualityEstimator`.
        model: Content hash of the model that draws. If the calibration is of another one, a warning says so and
            `report` leaves out what it estimates; None: it is not compared.

    Raises:
        ValueError: for what is no `SchedulerCore`.
        UnusableFile: if the calibration cannot be read.
    """

    def __init__(self, scheduler: SchedulerCore, calibration: str | None = None, model: str | None = None):
        super().__init__(scheduler)
        self.estimator = QualityEstimator(calibration)
        self.model = model
        measured = self.estimator.calibration.model
        self._foreign = model is not None and model != measured
        if self._foreign:
            log.warning(
                "quality is estimated by a calibration of the model %.12s, and this one is %.12s: it ranks images, "
                "but its scale is not this model's, and its mean is not reported",
                measured,
                model,
            )

        self.reset_history()

    @property
    def config(self) -> dict[str, Any]:
        """What decides the images besides the scheduler, JSON types."""
        return {"calibration": content_of(self.estimator.calibration), "model": self.model}

    def sample(
        self,
        model: Denoiser,
        batch_size: int = 1,
        image_size: tuple[int, int] = (32, 32),
        seed: int = 0,
        *,
        channels: int = 3,
        condition: mx.array | None = None,
    ) -> mx.array:
        """Draw images from noise, with the model as it was trained.

        A `PictureModel` tells its prediction type, its noise schedule and its size: the scheduler is set to them, as
        `DiffusionPipeline` does, and images are drawn at that size and resized to `image_size`.

        Args:
            model: The denoiser.
            batch_size: Images to draw, >= 1.
            image_size: (height, width) of the images, pixels.
            seed: Image i of a seed is the same whatever the batch it is drawn in, up to rounding.
            channels: Image channels.
            condition: (B, ...) conditions, or None.

        Returns:
            (B, H, W, C) float32 clean predictions in [-1, 1].
        """
        size = (check_count("height", image_size[0], 1), check_count("width", image_size[1], 1))
        keys = image_keys(seed, range(check_count("batch_size", batch_size, 1)))
        if not is_picture_model(model):
            self.scheduler.suit("", None, 1.0)
            images = self.run(model, normal(keys, (*size, channels)), condition=condition, keys=keys).images
            return mx.clip(images, -1, 1)

        self.scheduler.fit(model)
        self.scheduler.suit(model.identity, None, 1.0)  # images are drawn without guidance
        x0 = self.run(model, normal(keys, model.state_shape), condition=condition, keys=keys).images
        images = model.decode(x0)
        if model.picture_size != size:
            images = mx.array(resize(np.array(images), size))
        return mx.clip(images, -1, 1)

    def estimate_quality(self, sample: mx.array) -> float:
        """Mean quality in [0, 1] of clean images, (B, H, W, C) or (H, W, C), from variance and gradients alone.

        Images are floats in [-1, 1]; uint8 ones are scaled. The run itself knows better: see `get_quality_history`.
        """
        images = mx.array(sample)
        if images.dtype == mx.uint8:
            images = mx.array(to_float(np.array(images)))
        return float(self.estimator.still_quality(images[None] if images.ndim == 3 else images).mean())

    def get_quality_history(self) -> list[float]:
        """Mean estimated quality of the images after each step of the latest run, each in [0, 1].

        An image that is finished counts with what it ended with; the first step, which has nothing to compare with,
        is 0.
        """
        return list(self._history)

    def reset_history(self) -> None:
        """Forget the qualities of earlier runs."""
        self._history: list[float] = []
        self._final: list[np.ndarray] = []

    def report(self) -> dict[str, float]:
        """`sampling/estimated_quality`: mean over all images drawn since `reset_history`; {} if it is not known."""
        if self._foreign or not self._final:
            return {}
        return {"sampling/estimated_quality": float(np.concatenate(self._final).mean())}

    def _level(self, t: float) -> float:
        """sigma / alpha at a timestep."""
        return float(np.exp(-self.scheduler.schedule.log_snr(t)))


def replaced(pictures: mx.array, rows: np.ndarray, some: mx.array) -> mx.array:
    """(B, ...) images, those of `rows` replaced by `some`; the given array stays as it is."""
    source = np.arange(len(pictures))
    source[rows] = len(pictures) + np.arange(len(rows))
    return mx.concatenate([pictures, some])[mx.array(source)]
