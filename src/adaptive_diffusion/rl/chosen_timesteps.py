"""Timesteps that are chosen while a run goes on: a sequence that is safe to read, to slice and to keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin


class ChosenTimesteps(NDArrayOperatorsMixin, Sequence[float]):
    """Reads like an array of timesteps, but a loop over it comes to those that were chosen in the meantime.

    What is taken from it, a slice or the result of arithmetic, is a copy: later choices do not change it.

    Args:
        timesteps: (N,) where the run would go if nothing were chosen.
    """

    def __init__(self, timesteps: np.ndarray):
        self.begin(timesteps)

    def begin(self, timesteps: np.ndarray) -> None:
        """Begin anew, for the loop that reads it already."""
        self._values = np.array(timesteps, np.float64)

    def choose(self, index: int, timestep: float) -> None:
        """Go to another timestep at a later step."""
        self._values[index] = timestep

    def end_after(self, index: int) -> None:
        """Make a step the last one."""
        self._values = self._values[: index + 1].copy()

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        return self._values[index].copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._values, dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [np.asarray(value) if value is self else value for value in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # while it is copied or unpickled it may have no values yet
            raise AttributeError(name)
        return getattr(np.array(self._values), name)  # shape, tolist, max, ... of a copy

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values})"
