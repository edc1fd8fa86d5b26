"""What PyTorch remembers besides weights, as arrays in a file: the optimiser's moments, and the random generators."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np


def array(tensor: Any) -> np.ndarray:
    """A tensor of PyTorch as a NumPy array of its own."""
    return np.array(tensor.detach().cpu().numpy())


def tensor(array: np.ndarray) -> Any:
    """A NumPy array as a tensor of PyTorch."""
    import torch

    return torch.from_numpy(np.array(array))


def optimizer_tensors(optimizer: Any) -> dict[str, np.ndarray]:
    """What an optimiser remembers of each weight: `optimizer.<index>.<name>` -> array."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{slot}": array(value) for i, slots in state.items() for slot, value in slots.items()}


def optimizer_slots(tensors: dict[str, np.ndarray]) -> dict[int, dict[str, Any]]:
    """The arrays of `optimizer_tensors` in the layout of PyTorch: index -> name -> tensor."""
    slots: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".")
            slots.setdefault(int(index), {})[slot] = tensor(value)
    return slots


@dataclass(frozen=True)
class Generators:
    """The states of the global generators of PyTorch, NumPy and Python, which Stable-Baselines3 draws from."""

    of_torch: np.ndarray
    of_numpy: Any
    of_python: tuple[Any, ...]

    @classmethod
    def now(cls) -> Generators:
        """As they stand."""
        import torch

        return cls(array(torch.get_rng_state()), np.random.get_state(), random.getstate())  # noqa: NPY002

    @classmethod
    def read(cls, state: dict[str, Any], tensors: dict[str, np.ndarray]) -> Generators:
        """From the two parts of `parts`."""
        kind, *position = state["numpy_rng"]
        version, internal, gauss = state["python_rng"]
        return cls(tensors["rng.torch"], (kind, tensors["rng.numpy"], *position), (version, tuple(internal), gauss))

    def parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON types, and arrays."""
        kind, keys, *position = self.of_numpy
        state = {"numpy_rng": [kind, *position], "python_rng": self.of_python}
        return state, {"rng.torch": self.of_torch, "rng.numpy": np.asarray(keys, np.uint32)}

    def restore(self) -> None:
        """Let the generators go on where they stood."""
        import torch

        torch.set_rng_state(tensor(self.of_torch))
        np.random.set_state(self.of_numpy)  # noqa: NPY002
        random.setstate(self.of_python)
