"""What PyTorch remembers besides weights, as arrays in a file: the optimiser's moments, and the random generators."""

from __future__ import annotations

import random
from collections.abc import Callable
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


def generator_state() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The global generators of PyTorch, NumPy and Python, which Stable-Baselines3 uses: JSON types, and arrays."""
    import torch

    kind, keys, *position = np.random.get_state()  # noqa: NPY002
    state = {"numpy_rng": [kind, *position], "python_rng": random.getstate()}
    return state, {"rng.torch": array(torch.get_rng_state()), "rng.numpy": np.asarray(keys, np.uint32)}


def generators_in(state: dict[str, Any], tensors: dict[str, np.ndarray]) -> Callable[[], None]:
    """Read the two parts of `generator_state`; what is returned lets the generators go on where they stood."""
    import torch

    kind, *position = state["numpy_rng"]
    version, internal, gauss = state["python_rng"]
    of_torch, of_numpy = tensor(tensors["rng.torch"]), (kind, tensors["rng.numpy"], *position)

    def restore() -> None:
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate((version, tuple(internal), gauss))

    return restore
