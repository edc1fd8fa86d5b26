"""The contracts between the parts: what a model is, and what steps and runs give back.

Images are NHWC float32 in [-1, 1]; time is the training timestep t in [0, T - 1], real-valued.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, runtime_checkable

import mlx.core as mx
import numpy as np

UNKNOWN = "unknown"  # the domain of a model of which nobody says what it draws


class Denoiser(Protocol):
    """Any network that predicts eps, v or x0; which of them, the scheduler's `prediction_type` says."""

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None, /) -> mx.array:
        """Predict.

        Args:
            x: (B, H, W, C) noisy images x_t.
            t: (B,) timesteps in [0, T - 1].
            condition: (B, ...) what each image is conditioned on, or None.

        Returns:
            (B, H, W, C) prediction.
        """
        ...


class PictureModel(Denoiser, Protocol):
    """A network that whole images can be drawn with; its states x_t are images, or the latents of images.

    What an image is to show reaches it as class ids, (B, K) with 0 for "anything": ids of its own vocabulary, or of
    texts that `condition` was given; equal ids mean the same in all runs.
    """

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What is known of the network; `ModelFacts` reads it, with what holds where it is left out.

        `prediction_type`; `noise_schedule`, arguments of `NoiseSchedule`; `guidance_scale`, the default; `content_hash`
        of its files; `label_counts`, of a domain how many training images each of its labels had; `bounded`, False
        where clean predictions are latents, which no scheduler may clip.
        """
        ...

    @property
    def identity(self) -> str:
        """What decides its predictions, besides what it is called with."""
        ...

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of a state."""
        ...

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) of an image, pixels."""
        ...

    @property
    def conditional(self) -> bool:
        """Whether it can be told what to draw."""
        ...

    @property
    def domains(self) -> Mapping[str, Sequence[str]] | None:
        """The domains it draws, with the labels of each; None where that is open: it reads, or nobody knows."""
        ...

    def condition(self, domain: str, label: str | None, caption: str) -> tuple[int, ...]:
        """Class ids for what an image is to show; () without a condition.

        Args:
            domain: The domain.
            label: A label of it, or None.
            caption: The same in words, for models that read.

        Raises:
            ValueError: if it cannot draw that; `Unusable` is told as the user's mistake.
        """
        ...

    def encode(self, pictures: mx.array) -> mx.array:
        """(B, height, width, C) images in [-1, 1] -> (B, *state_shape) clean states."""
        ...

    def decode(self, x0: mx.array) -> mx.array:
        """(B, *state_shape) clean predictions -> (B, height, width, C) float32 images, about [-1, 1]."""
        ...


@runtime_checkable
class ChecksConditions(Protocol):
    """A network that refuses conditions which it cannot draw with; others are taken to draw with all."""

    def check_condition(self, condition: mx.array) -> None:
        """Check conditions once, before a run.

        Args:
            condition: (B, ...) conditions, see `Denoiser`.

        Raises:
            ValueError: for conditions of another shape or type, or out of range.
        """
        ...


def is_picture_model(model: Denoiser) -> TypeGuard[PictureModel]:
    """Whether a network says itself what it draws."""
    return hasattr(model, "metadata") and hasattr(model, "picture_size")


@dataclass(frozen=True)
class SchedulerOutput:
    """What one solver step yields.

    Attributes:
        prev_sample: (B, H, W, C) x at the next, less noisy timestep.
        pred_original_sample: (B, H, W, C) the clean prediction x0 used by the step (after clipping); of the last step,
            where it leads to the clean image, that.
    """

    prev_sample: mx.array
    pred_original_sample: mx.array


@dataclass(frozen=True)
class StepTrace:
    """One step of a sampling loop, as the loop's generator yields it (lazily: the caller evaluates).

    Attributes:
        index: Step number, from 0.
        timestep: The t at which the model was evaluated.
        x0: (B, H, W, C) clean predictions of all B images; a finished image keeps its final one.
        active: (B,) bool, the images that were evaluated in this step; none where the prediction was known.
        quality: (B,) estimated quality in [0, 1], or None where the sampler estimates none.
    """

    index: int
    timestep: float
    x0: mx.array
    active: np.ndarray
    quality: np.ndarray | None = None


@dataclass(frozen=True)
class SampleResult:
    """What a sampling run gives back.

    Attributes:
        images: (B, H, W, C) float32 in [-1, 1], always clean predictions x0.
        evaluations: (B,) model evaluations spent on each image (a guided evaluation counts once).
        timesteps: Timesteps visited, in order.
        step_seconds: Seconds of each step, synchronised.
        strip: (steps, K, H, W, C) clean predictions of the first K images over the steps.
        known: Steps at the beginning that were taken without an evaluation.
    """

    images: mx.array
    evaluations: np.ndarray
    timesteps: tuple[float, ...]
    step_seconds: tuple[float, ...]
    strip: np.ndarray
    known: int = 0

    @property
    def total_evaluations(self) -> int:
        """Model evaluations of the whole batch."""
        return int(self.evaluations.sum())

    @property
    def seconds(self) -> float:
        """Seconds of all steps together."""
        return float(sum(self.step_seconds))
