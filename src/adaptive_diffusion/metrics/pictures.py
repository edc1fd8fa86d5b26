"""The check of images for all metrics: (N, H, W, 3), uint8 or float in [-1, 1]."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from ..io.pixels import prepare_all, to_float, to_uint8

_SLACK = 1e-3  # float rounding at the ends of [-1, 1], which is clipped


def check_pictures(images: Any) -> np.ndarray:
    """Check images and return them as a uint8 or float32 array.

    Args:
        images: (N, H, W, 3) NumPy or MLX array, uint8 in [0, 255] or floating point in [-1, 1], N >= 1.

    Returns:
        The same images; floats as float32, clipped to [-1, 1].

    Raises:
        ValueError: for one image without batch axis, grey, RGBA or channels-first images, 16-bit or other
            integers, floats outside [-1, 1], NaN, or no image at all. Nothing is converted silently.
    """
    if isinstance(images, mx.array) and images.dtype == mx.bfloat16:
        images = images.astype(mx.float32)  # NumPy has no bfloat16

    x = np.asarray(images)
    _check_shape(x)
    if x.dtype == np.uint8:
        return x
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(
            f"images must be uint8 or floating point in [-1, 1], got {x.dtype}; for 16-bit images divide by 257 "
            "and convert to uint8"
        )

    x = x.astype(np.float32)
    bad = int((~np.isfinite(x).all(axis=(1, 2, 3))).sum())
    if bad:
        raise ValueError(f"images must be finite, got NaN or infinity in {bad} of {len(x)}; see what produced them")

    low, high = float(x.min()), float(x.max())
    if low < -1 - _SLACK or high > 1 + _SLACK:
        hint = "convert images in [0, 255] to uint8" if high > 2 else "clip them if they are samples"
        raise ValueError(f"floating-point images must lie in [-1, 1], got [{low:.4g}, {high:.4g}]; {hint}")

    return np.clip(x, -1.0, 1.0)


def _check_shape(x: np.ndarray) -> None:
    """Refuse other shapes than (N, H, W, 3), with advice for the common mistakes."""
    accepted = "images must be an array (N, H, W, 3)"
    if x.dtype == object:
        raise ValueError(f"{accepted}, got a list of images of different sizes; bring them to one size first")
    if x.ndim == 3 and x.shape[-1] == 3:
        raise ValueError(f"{accepted}, got one image of shape {x.shape}; give images[None]")
    if x.ndim == 3:
        raise ValueError(f"{accepted}, got shape {x.shape}; for grey images give np.stack([images] * 3, axis=-1)")
    if x.ndim != 4:
        raise ValueError(f"{accepted}, got shape {x.shape}")
    if 0 in x.shape:
        raise ValueError(f"{accepted} with at least one image, got shape {x.shape}")

    channels = x.shape[-1]
    if channels == 1:
        raise ValueError(f"{accepted}, got grey images of shape {x.shape}; give np.repeat(images, 3, axis=-1)")
    if channels == 4:
        raise ValueError(f"{accepted}, got four channels (RGBA?), {x.shape}; flatten them onto a background first")
    if channels != 3 and x.shape[1] == 3:
        raise ValueError(f"{accepted}, got channels first, {x.shape}; give images.transpose(0, 2, 3, 1)")
    if channels != 3:
        raise ValueError(f"{accepted}, got {channels} channels, shape {x.shape}")


def as_uint8(images: Any) -> np.ndarray:
    """Check images and return them as (N, H, W, 3) uint8; floats are rounded as in an image file."""
    x = check_pictures(images)
    return x if x.dtype == np.uint8 else to_uint8(x)


def as_float(images: Any) -> np.ndarray:
    """Check images and return them as (N, H, W, 3) float32 in [-1, 1]."""
    x = check_pictures(images)
    return to_float(x) if x.dtype == np.uint8 else x


def at_side(images: Any, side: int) -> np.ndarray:
    """Check images and return them as (N, side, side, 3) float32 in [-1, 1].

    Images of another size are cropped in the middle and resized in 8 bits, exactly like the images of a reference.
    """
    x = as_float(images)
    return x if x.shape[1:3] == (side, side) else to_float(prepare_all(as_uint8(x), (side, side)))
