"""Drawing many images in batches; image i of a seed is the same whatever the batch size, up to rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx

from ..diffusion.conditions import Conditions, Mixture, Same
from ..diffusion.guided_model import GuidedModel
from ..diffusion.rng import image_keys, normal
from ..types import Denoiser, PictureModel, SampleResult, StepTrace
from .standard import StandardSampler


def decoded(model: PictureModel, states: mx.array) -> mx.array:
    """(B, *state_shape) clean states at the end of a run -> (B, height, width, C) images, about [-1, 1].

    Raises:
        FloatingPointError: for NaN or infinity.
        MachineError: if latents cannot be decoded.
    """
    images = model.decode(states)
    if not mx.isfinite(images).all().item():
        raise FloatingPointError(
            "the images hold NaN or infinity, as the model predicted it; check its weights, its precision and, where "
            "it is guided, the weight of guidance"
        )
    return images


def draw_batches(
    sampler: StandardSampler,
    denoiser: Denoiser,
    begin: Callable[[], None],
    shape: tuple[int, ...],
    *,
    seed: int,
    count: int,
    batch_size: int,
    conditions: Conditions = Same(),  # noqa: B008  # it is frozen
    start: Callable[[mx.array], mx.array] | None = None,
    progress: Callable[[StepTrace], None] | None = None,
) -> Iterator[SampleResult]:
    """Draw the images 0 to `count` - 1 of a seed.

    Args:
        sampler: The loop.
        denoiser: The network with its guidance.
        begin: Called before every batch: sets the scheduler's timesteps.
        shape: (H, W, C) of an image.
        seed: >= 0.
        count: Number of images.
        batch_size: Images per batch.
        conditions: What images are conditioned on, see `conditions_of`.
        start: Makes the first states of a batch from its noise, once its timesteps are set (see `starts`); None: they
            are the noise.
        progress: Called after every step.

    Yields:
        The result of each batch.
    """
    if isinstance(conditions, Mixture) and isinstance(denoiser, GuidedModel):
        # a batch whose images happen to share a label is drawn like every other one
        denoiser = denoiser.with_condition(None, by_share=True)
    for first in range(0, count, batch_size):
        images = range(first, min(first + batch_size, count))
        keys = image_keys(seed, images)
        begin()
        noise = normal(keys, shape)
        x_T = noise if start is None else start(noise)
        yield sampler.run(denoiser, x_T, condition=conditions.rows(seed, images), keys=keys, progress=progress)
