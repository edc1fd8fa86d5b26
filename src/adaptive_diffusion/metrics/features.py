"""The protocol of feature encoders, and their evaluation in batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from ..errors import MachineError
from .statistics import FeatureStatistics


class FeatureEncoder(Protocol):
    """A network that turns images into feature vectors, with a name and a hash.

    Attributes:
        name: Name of the network and the layer, e.g. "inception_v3/2048".
        content_hash: Hash of the weights.
    """

    @property
    def name(self) -> str: ...

    @property
    def content_hash(self) -> str: ...

    def features(self, images: Any, batch_size: int = ...) -> np.ndarray:
        """(N, H, W, 3) images, uint8 or float in [-1, 1] -> (N, d) float32."""
        ...


def picture_statistics(encoder: FeatureEncoder, images: Any) -> FeatureStatistics:
    """Statistics of the features of (N, H, W, 3) images, N >= 2; see `pictures.check_pictures`."""
    return FeatureStatistics.from_features(encoder.features(images), encoder.name, encoder.content_hash)


def in_batches(encode: Callable[..., mx.array], *arrays: Any, batch_size: int) -> np.ndarray:
    """Apply `encode` to slices of arrays of equal length, with one `mx.eval` per slice.

    Args:
        encode: Maps one slice of each array to (n, ...) float32.
        arrays: Arrays of shape (N, ...).
        batch_size: Rows per slice, positive.

    Returns:
        (N, ...) float32.

    Raises:
        ValueError: if `batch_size` is not positive.
        MachineError: if a result is not finite.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")

    results = []
    for start in range(0, len(arrays[0]), batch_size):
        y = encode(*(array[start : start + batch_size] for array in arrays))
        mx.eval(y)
        results.append(np.array(y))
        if not np.isfinite(results[-1]).all():
            raise MachineError("an encoder returned NaN or infinity for finite images; its weights are damaged")

    return np.concatenate(results)
