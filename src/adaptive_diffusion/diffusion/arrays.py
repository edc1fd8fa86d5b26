"""What several folders do with arrays of images."""

from __future__ import annotations

import mlx.core as mx
import numpy as np


def at_least_float32(x: mx.array) -> mx.array:
    """Half precision is too coarse for the differences that solvers take."""
    return x.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x


def replaced(images: mx.array, rows: np.ndarray, some: mx.array) -> mx.array:
    """(B, ...) images, those of `rows` replaced by `some`; the given array stays as it is."""
    source = np.arange(len(images))
    source[rows] = len(images) + np.arange(len(rows))
    return mx.concatenate([images, some])[mx.array(source)]


def rms(x: mx.array) -> mx.array:
    """(B, 1, ..., 1) root mean square of each image."""
    return mx.sqrt(mx.mean(x * x, axis=tuple(range(1, x.ndim)), keepdims=True))
