"""Pooling and resizing of NHWC arrays, exactly as in the published networks."""

from __future__ import annotations

import mlx.core as mx
import numpy as np


def max_pool(x: mx.array, size: int, stride: int, padding: int = 0) -> mx.array:
    """(B, H, W, C) -> maxima over size x size windows, without incomplete windows."""
    if padding:
        pads = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
        x = mx.pad(x, pads, constant_values=mx.array(-mx.inf, x.dtype))

    # The maximum over a square is the maximum over rows, then over columns.
    for axis in (1, 2):
        count = (x.shape[axis] - size) // stride + 1
        windows = [_strided(x, axis, i, count, stride) for i in range(size)]
        x = windows[0]
        for window in windows[1:]:
            x = mx.maximum(x, window)

    return x


def average_pool_3x3(x: mx.array) -> mx.array:
    """(B, H, W, C) -> means over 3x3 windows; the mean at an edge is over fewer pixels, as in TensorFlow."""
    for axis in (1, 2):
        n = x.shape[axis]
        pads = [(0, 0)] * 4
        pads[axis] = (1, 1)
        padded = mx.pad(x, pads)
        total = _strided(padded, axis, 0, n, 1) + x + _strided(padded, axis, 2, n, 1)

        counts = np.full(n, 3.0, np.float32)
        counts[0] -= 1
        counts[-1] -= 1

        shape = [1] * 4
        shape[axis] = n
        x = total / mx.array(counts).reshape(shape)

    return x


def resize_bilinear_tf1(x: mx.array, size: int) -> mx.array:
    """(B, H, W, C) -> (B, size, size, C), as in TensorFlow 1's resize_bilinear, which is part of the definition of FID.

    Output pixel i samples the input at i * in / size, without half-pixel centres and without antialiasing. Positions
    are float32, as in TensorFlow.
    """
    for axis in (2, 1):
        n = x.shape[axis]
        position = np.arange(size, dtype=np.float32) * np.float32(n / size)
        low = position.astype(np.int32)
        high = np.minimum(low + 1, n - 1)

        shape = [1] * 4
        shape[axis] = size
        fraction = mx.array(position - low.astype(np.float32)).reshape(shape)
        below = mx.take(x, mx.array(low), axis=axis)
        x = below + (mx.take(x, mx.array(high), axis=axis) - below) * fraction

    return x


def _strided(x: mx.array, axis: int, start: int, count: int, stride: int) -> mx.array:
    """`count` slices of axis 1 or 2, from `start` on, in steps of `stride`."""
    window = slice(start, start + (count - 1) * stride + 1, stride)
    return x[:, window] if axis == 1 else x[:, :, window]
