"""Explicit randomness: one key per image, so that an image does not depend on the batch it was drawn in."""

from __future__ import annotations

from collections.abc import Iterable

import mlx.core as mx
import numpy as np

from .checks import check_seed


def image_keys(seed: int, indices: Iterable[int]) -> mx.array:
    """Keys of the images `indices` of the run `seed`.

    Args:
        seed: Run seed, in [0, 2^32 - 1]: NumPy would take what is beyond for an image of a smaller one.
        indices: Image numbers within the run, >= 0.

    Returns:
        (B, 2) uint32, one MLX random key per image.

    Raises:
        ValueError: for a seed that is no whole number, or out of range.
    """
    seed = check_seed("seed", seed)
    states = [np.random.SeedSequence([seed, i]).generate_state(2, np.uint32) for i in indices]
    return mx.array(np.stack(states))


def step_keys(keys: mx.array, step: int) -> mx.array:
    """(B, 2) keys for the noise that step number `step` (from 0) injects, distinct from those of x_T."""
    return keys ^ mx.array([0, step + 1], dtype=mx.uint32)


def normal(keys: mx.array, shape: tuple[int, ...]) -> mx.array:
    """Standard normal noise, one image per key.

    Args:
        keys: (B, 2) uint32.
        shape: Shape of one image, e.g. (H, W, C).

    Returns:
        (B, *shape) float32.
    """
    return mx.vmap(lambda key: mx.random.normal(shape, key=key))(keys)
