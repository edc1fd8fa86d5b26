"""Gymnasium's `Env` and `Box`; where it is not installed, what the environments and the search agents use of them."""

from __future__ import annotations

from typing import Any

import numpy as np

try:
    from gymnasium import Env
    from gymnasium.spaces import Box
except ModuleNotFoundError:  # it comes with the extra `rl`

    class Env:  # type: ignore[no-redef]
        """An environment that only ours know."""

        action_space: Any
        observation_space: Any

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
            """Nothing to reset: the episodes of a `SamplingEnv` follow from its own seed."""

    class Box:  # type: ignore[no-redef]
        """Arrays of one shape whose numbers lie between bounds, each inclusive."""

        def __init__(self, low: Any, high: Any, shape: tuple[int, ...] | None = None, dtype: Any = np.float32):
            self.shape = np.shape(low) if shape is None else shape
            self.low, self.high = (np.full(self.shape, bound, dtype) for bound in (low, high))
            self.dtype = np.dtype(dtype)


__all__ = ["Box", "Env"]
