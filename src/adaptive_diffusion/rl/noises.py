"""Noises that are drawn from again and again, and what images drawn from them are compared with."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_choice, check_count, check_seed
from ..diffusion.guided_model import GuidedModel
from ..io.progress import Progress
from ..sampling.converged import TOLERANCE, Converged, converged_pictures, paired_rmse, solving_evaluations
from .lockstep import Drawn
from .measurement import Measurement, Sampled

METRICS = ("rmse", "perceptual")
# of the converged solutions that environments compare with: a fraction of the error of the finest configuration, where
# the tolerance of `converged` would take several times as many evaluations before the first episode
SOLVED_WITHIN = 0.005


class Noises(ABC):
    """Batches of fixed noises, and how far what is drawn from them is from where it should be.

    Args:
        drawing: What is drawn.
        pictures: Images per batch, >= 2.
        batches: Number of batches, >= 1.
        seed: Of the noises, >= 0; another seed gives other ones.
        metric: One of `metrics`.

    Attributes:
        metrics: What distances there are.
        measurement: What a comparison with a baseline is.
        fewest: Images of a part, at least, see `split`.
        drawing: What is drawn, with the conditions of all images of all batches.

    Raises:
        ValueError: for a value out of range.
    """

    metrics: ClassVar[Sequence[str]]
    measurement: ClassVar[type[Measurement]] = Measurement
    fewest: ClassVar[int] = 2
    _own: Mapping[str, Any]  # what the class itself was given besides

    def __init__(self, drawing: GuidedModel, *, pictures: int, batches: int, seed: int, metric: str):
        check_choice("metric", metric, self.metrics)
        self.pictures = check_count("pictures", pictures, 2)
        self.batches = check_count("batches", batches, 1)
        self.seed = check_seed("noise_seed", seed)
        self.drawing, self._any = drawing.of_images(seed, pictures * batches), drawing
        self.metric = metric

    def others(self, batches: int) -> Self:
        """Batches of other noises for the same purpose: those of the next seed."""
        size = {"pictures": self.pictures, "batches": batches, "seed": self.seed + 1}
        return type(self)(self._any, metric=self.metric, **size, **self._own)

    def split(self, parts: int) -> Self:
        """The same noises in batches of a `parts`-th of the size; solved for once for both.

        Raises:
            ValueError: unless the parts are equal and have `fewest` images or more.
        """
        if self.pictures % check_count("parts", parts, 1) or self.pictures // parts < self.fewest:
            raise ValueError(
                f"parts must divide a batch of {self.pictures} images into {self.fewest} or more each, got {parts}"
            )
        part = copy.copy(self)
        part.pictures, part.batches = self.pictures // parts, self.batches * parts
        return part

    @property
    def most_parts(self) -> int:
        """The most equal parts of a batch that have enough images, see `split`."""
        most = max(self.pictures // self.fewest, 1)
        return max(parts for parts in range(1, most + 1) if self.pictures % parts == 0)

    def x_T(self, batch: int) -> mx.array:
        """(N, H, W, C) standard normal noise of a batch."""
        return self._noise[batch * self.pictures : (batch + 1) * self.pictures]

    def rows(self, batch: int) -> np.ndarray:
        """(N,) which images of `drawing` a batch is."""
        return np.arange(batch * self.pictures, (batch + 1) * self.pictures)

    @abstractmethod
    def errors(self, batch: int, states: np.ndarray) -> np.ndarray:
        """(N,) float64 errors of images, smaller is better.

        Args:
            batch: Number of the batch.
            states: (N, H, W, C) clean states drawn from its noises.
        """

    def sampled(self, batch: int, drawn: Drawn, *, keep_states: bool = False) -> Sampled:
        """The errors and the cost of the images that were drawn from a batch; their states where they are kept."""
        states = drawn.states
        errors = self.errors(batch, states)
        return Sampled(errors, drawn.evaluations, drawn.seconds, drawn.passes, states if keep_states else None)

    def solve(self) -> None:  # noqa: B027
        """Solve now, with its progress, for what images are compared with, if that takes evaluations."""

    def solving(self) -> tuple[int, int]:
        """Fewest and most model evaluations that this takes."""
        return 0, 0

    @cached_property
    def _noise(self) -> mx.array:
        return self.drawing.noise(self.seed, self.batches * self.pictures)


class FixedNoises(Noises):
    """Batches of fixed noises with the model's converged solution from each, which is solved for when first needed.

    Args:
        drawing: What is drawn.
        metric: Distance to the converged solution: `rmse` in [-1, 1] units, or `perceptual`, the shipped encoder's.
        tolerance: See `converged_pictures`.
        cache: Folder that keeps converged solutions, or None.
        **size: `pictures`, `batches` and `seed`, see `Noises`.

    Raises:
        ValueError: for a value out of range.
    """

    metrics = METRICS

    def __init__(
        self,
        drawing: GuidedModel,
        *,
        metric: str = "rmse",
        tolerance: float = TOLERANCE,
        cache: str | Path | None = None,
        **size: int,
    ):
        super().__init__(drawing, metric=metric, **size)
        self._own = {"tolerance": tolerance, "cache": cache}
        self._tolerance, self._cache = tolerance, None if cache is None else Path(cache)
        self._whole = self  # what is solved for is kept there

    def errors(self, batch: int, states: np.ndarray) -> np.ndarray:
        """Distance of images to the converged solutions from the same noises.

        Distances smaller than a doubling of the converged solution's steps changed it, on average over images, count
        as that: more it cannot tell.

        Args:
            batch: Number of the batch.
            states: (N, H, W, C) clean states drawn from its noises.

        Returns:
            (N,) float64 > 0.
        """
        whole = self._whole
        solution = whole._solution[batch * self.pictures : (batch + 1) * self.pictures]
        distances = whole._distance(self.drawing.images(states), solution)
        return np.maximum(distances.astype(np.float64), whole._floor)

    def solve(self) -> None:
        """Solve for the converged solutions now, unless they are there already, and show how far that is."""
        whole = self._whole
        if "_converged" in vars(whole):
            return
        what = f"converged solutions of {whole.batches * whole.pictures} images"
        with Progress(what, unit="solver step", announced=True) as shown:
            vars(whole)["_converged"] = whole._solved(shown.update)

    def solving(self) -> tuple[int, int]:
        """Fewest and most model evaluations that the converged solutions take."""
        return solving_evaluations(self.batches * self.pictures, self.drawing.process)

    @cached_property
    def _converged(self) -> Converged:
        return self._solved()

    def _solved(self, progress: Callable[[], None] | None = None) -> Converged:
        cache = self._cache if self.drawing.identity else None
        return converged_pictures(self.drawing, self._noise, tolerance=self._tolerance, cache=cache, progress=progress)

    @cached_property
    def _solution(self) -> np.ndarray:
        """Images of the converged solution."""
        return self.drawing.images(self._converged.images)

    @cached_property
    def _floor(self) -> float:
        finer = self.drawing.images(self._converged.finer)
        return max(float(self._distance(self._solution[: len(finer)], finer).mean()), 1e-12)

    @cached_property
    def _distance(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        if self.metric == "rmse":
            return paired_rmse
        from ..encoder.encoder import load_builtin_encoder

        return load_builtin_encoder().perceptual_distances
