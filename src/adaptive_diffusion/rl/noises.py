"""Noises that are drawn from again and again, and what pictures drawn from them are compared with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..baseline.checks import check_choice, check_count
from ..baseline.schedulers import DPMSolverScheduler
from ..converged import TOLERANCE, Converged, converged_pictures, paired_rmse
from ..rng import image_keys, normal
from .drawing import Drawing

METRICS = ("rmse", "perceptual")


class FixedNoises:
    """Batches of fixed noises with the model's converged solution from each, which is solved for when first needed.

    Args:
        drawing: What is drawn.
        pictures: Pictures per batch, >= 2.
        batches: Number of batches, >= 1.
        seed: Of the noises, >= 0; another seed gives other ones.
        metric: Distance to the converged solution: `rmse` in [-1, 1] units, or `perceptual`, the shipped encoder's.
        tolerance: See `converged_pictures`.
        cache: Folder that keeps converged solutions, or None.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        drawing: Drawing,
        *,
        pictures: int,
        batches: int,
        seed: int,
        metric: str = "rmse",
        tolerance: float = TOLERANCE,
        cache: str | Path | None = None,
    ):
        check_choice("metric", metric, METRICS)
        self.drawing = drawing
        self.pictures = check_count("pictures", pictures, 2)
        self.batches = check_count("batches", batches, 1)
        self.seed = check_count("noise_seed", seed, 0)
        self.metric = metric
        self._tolerance, self._cache = tolerance, None if cache is None else Path(cache)

    def others(self, batches: int) -> FixedNoises:
        """Batches of other noises for the same purpose: those of the next seed."""
        return FixedNoises(
            self.drawing,
            pictures=self.pictures,
            batches=batches,
            seed=self.seed + 1,
            metric=self.metric,
            tolerance=self._tolerance,
            cache=self._cache,
        )

    def x_T(self, batch: int) -> mx.array:
        """(pictures, H, W, C) standard normal noise of a batch."""
        return self._noise[batch * self.pictures : (batch + 1) * self.pictures]

    def errors(self, batch: int, images: np.ndarray) -> np.ndarray:
        """Distance of pictures to the converged solutions from the same noises.

        Distances smaller than a doubling of the converged solution's steps changed it, on average over pictures, count
        as that: more it cannot tell.

        Args:
            batch: Number of the batch.
            images: (pictures, H, W, C) drawn from its noises.

        Returns:
            (pictures,) float64 > 0.
        """
        solution = self._converged.images[batch * self.pictures : (batch + 1) * self.pictures]
        return np.maximum(self._distance(images, solution).astype(np.float64), self._floor)

    @cached_property
    def _noise(self) -> mx.array:
        return normal(image_keys(self.seed, range(self.batches * self.pictures)), self.drawing.shape)

    @cached_property
    def _converged(self) -> Converged:
        return converged_pictures(
            self.drawing.denoiser,
            DPMSolverScheduler(**self.drawing.settings),
            self._noise,
            self.drawing.conditions(len(self._noise)),
            tolerance=self._tolerance,
            cache=self._cache if self.drawing.identity else None,
            identity=self.drawing.identity,
        )

    @cached_property
    def _floor(self) -> float:
        solution = self._converged
        return max(float(self._distance(solution.images[: len(solution.finer)], solution.finer).mean()), 1e-12)

    @cached_property
    def _distance(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        if self.metric == "rmse":
            return paired_rmse
        from ..metrics.encoder import load_builtin_encoder

        return load_builtin_encoder().perceptual_distances
