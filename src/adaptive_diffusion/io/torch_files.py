"""Read PyTorch's `.pth`, `.pt`, `.bin` and `.ckpt` weight files without ever running code from them.

Such a file is a pickle, a small program that may call any function. `torch.load(weights_only=True)` reads it with
PyTorch's own unpickler, which knows the pieces of tensors and refuses everything else.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingPackage, UnusableFile
from .files import why_unreadable

if TYPE_CHECKING:
    from torch import Tensor

SAFE_SINCE = (2, 6)  # older versions could be tricked into running code (CVE-2025-32434)
NESTED = ("state_dict", "model", "params")  # keys under which training programs put the tensors
CONVERT = "convert it to safetensors where you trust it"


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a weight file written by `torch.save`.

    Args:
        path: A state dict, or a dict that holds one as "state_dict", "model" or "params".

    Returns:
        Name -> array; bfloat16 becomes float32. Only tensors are returned.

    Raises:
        UnusableFile: if the file is damaged, holds no state dict, or refers to anything but tensors.
        MissingPackage: if PyTorch is missing or too old.
    """
    path = Path(path)
    if trouble := why_unreadable(path):
        raise UnusableFile(f"{path} {trouble}")

    return {name: _array(path, name, tensor) for name, tensor in _state_dict(path, _content(path)).items()}


def _content(path: Path) -> Any:
    """The object in a file."""
    try:
        import torch
    except ModuleNotFoundError:
        raise MissingPackage(
            f"{path} is a PyTorch file, which only PyTorch reads: pip install torch, or convert the file to safetensors"
        ) from None

    if tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_SINCE:
        raise MissingPackage(f"PyTorch {torch.__version__} may run code of {path}: pip install -U torch, or {CONVERT}")

    try:
        with warnings.catch_warnings(action="ignore"):  # the sentences below say it
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise errors of almost any kind
        if reason := _refusal(error):
            raise UnusableFile(
                f"{path} is not a plain weight file and was not opened further: {reason}; {CONVERT}"
            ) from error

        raise UnusableFile(
            f"{path} cannot be read as a PyTorch weight file: it is damaged or of another kind; get it again"
        ) from error


def _refusal(error: Exception) -> str | None:
    """What a file wants beyond tensors; None if it is damaged. PyTorch's own text advises to trust the file."""
    text = str(error)
    if wanted := re.search(r"GLOBAL (\S+)", text):
        return f"it wants to use {wanted[1]}"
    if "TorchScript" in text:
        return "it is a TorchScript archive, which holds code"
    return "it holds more than tensors" if isinstance(error, pickle.UnpicklingError) else None


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    """The tensors by name: of the object itself, or of the object under one of the usual keys in it."""
    from torch import Tensor

    for _ in range(2):
        if isinstance(content, Mapping):
            if found := {str(name): value for name, value in content.items() if isinstance(value, Tensor)}:
                return found

            content = next((content[key] for key in NESTED if key in content), None)

    raise UnusableFile(f"{path} holds no state dict, name -> tensor; {CONVERT}")


def _array(path: Path, name: str, tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor; NumPy has no bfloat16."""
    plain = tensor.detach()
    try:
        return (plain.float() if f"{plain.dtype}" == "torch.bfloat16" else plain).numpy()
    except (TypeError, RuntimeError) as error:
        raise UnusableFile(f"{path} holds {name!r} as {plain.layout} {plain.dtype}, which is not supported") from error
