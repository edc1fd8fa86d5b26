"""What the states of a run look like on the way, without decoding each of them."""

from __future__ import annotations

import mlx.core as mx
import numpy as np


def as_pictures(states: np.ndarray, x0: mx.array, pictures: mx.array) -> np.ndarray:
    """States as images: themselves if they are images, else by the linear map that suits the decoded ones best.

    A latent is much like the mean colour of its patch under a linear map. Which one is learned from the end of the run,
    where both are known, by least squares.

    Args:
        states: (..., h, w, c) states of the run.
        x0: (B, h, w, c) its last states.
        pictures: (B, H, W, C) those decoded; H / h and W / w whole.

    Returns:
        (..., h, w, C) float32.
    """
    if x0.shape == pictures.shape:
        return states
    B, h, w, c = x0.shape
    _, H, W, C = pictures.shape
    means = np.array(pictures.reshape(B, h, H // h, w, W // w, C).mean(axis=(2, 4))).reshape(-1, C)
    latents = np.array(x0).reshape(-1, c)
    solution, *_ = np.linalg.lstsq(_with_one(latents), means, rcond=None)
    return (_with_one(states) @ solution).astype(np.float32)


def _with_one(x: np.ndarray) -> np.ndarray:
    """The same with a channel of ones, for the offset."""
    return np.concatenate([x, np.ones((*x.shape[:-1], 1), x.dtype)], axis=-1)
