"""Drawing many images in batches; image i of a seed is the same whatever the batch size, up to rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx

from ..diffusion.rng import image_keys, normal
from ..types import Denoiser, SampleResult, StepTrace
from .standard import StandardSampler


def draw_batches(
    sampler: StandardSampler,
    denoiser: Denoiser,
    begin: Callable[[], None],
    shape: tuple[int, ...],
    *,
    seed: int,
    count: int,
    batch_size: int,
    condition: tuple[int, ...] = (),
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
        condition: Class ids that every image is drawn with; () for an unconditional model.
        start: Makes the first states of a batch from its noise, once its timesteps are set (see `starts`); None: they
            are the noise.
        progress: Called after every step.

    Yields:
        The result of each batch.
    """
    for first in range(0, count, batch_size):
        keys = image_keys(seed, range(first, min(first + batch_size, count)))
        begin()
        noise, given = normal(keys, shape), conditions(condition, len(keys))
        x_T = noise if start is None else start(noise)
        yield sampler.run(denoiser, x_T, condition=given, keys=keys, progress=progress)


def conditions(class_ids: tuple[int, ...], batch_size: int) -> mx.array | None:
    """(batch_size, K) int32: the same class ids for every image of a batch; None if there are none."""
    return mx.array([class_ids] * batch_size, dtype=mx.int32) if class_ids else None
