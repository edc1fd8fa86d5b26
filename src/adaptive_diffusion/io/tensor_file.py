"""safetensors files: names, types, tensors and a header of texts."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from ..errors import UnusableFile
from .files import parse_json, why_unreadable

LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
KNOWN_TYPES = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "C64"}  # of MLX
NAMES_OF_TYPES = {"F64": "float64"}


def write_tensors(path: str | Path, tensors: dict[str, mx.array], header: Mapping[str, str]) -> None:
    """Write a safetensors file.

    Args:
        path: A temporary path, see `atomic_path`.
        tensors: Name -> tensor.
        header: Further texts by name.

    Raises:
        OSError: if the system refuses.
    """
    open(path, "wb").close()  # Python says why a file cannot be made, MLX does not

    try:
        mx.save_safetensors(str(path), tensors, dict(header))
    except RuntimeError as error:
        if "write" not in str(error):
            raise
        raise _refusal(path) from error


def _refusal(path: str | Path) -> OSError:
    """Why the system accepts no more bytes in a file: MLX does not say it, Python does."""
    try:
        with open(path, "ab") as file:
            file.write(bytes(2**20))
            os.fsync(file.fileno())
    except OSError as error:
        return OSError(error.errno, error.strerror, str(path))
    return OSError(errno.EIO, os.strerror(errno.EIO), str(path))


def read_tensors(path: str | Path) -> tuple[dict[str, mx.array], dict[str, str]]:
    """Tensors and header of a safetensors file.

    Raises:
        UnusableFile: if the file cannot be read, or is truncated or of another kind.
    """
    try:
        loaded: Any = mx.load(str(path), format="safetensors", return_metadata=True)
        mx.eval(loaded[0])  # MLX reads a file only when its tensors are used
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        trouble = why_unreadable(path) or _foreign_numbers(Path(path))
        damaged = "cannot be read as safetensors: it is truncated or another kind of file; get or make it again"
        raise UnusableFile(f"{path} {trouble or damaged}") from error

    return cast("tuple[dict[str, mx.array], dict[str, str]]", loaded)


def misfit(tensors: Mapping[str, mx.array], expected: Mapping[str, mx.array]) -> str | None:
    """What first keeps tensors from being the expected ones, by name and shape; None if they are.

    For example "lacks the tensor 'head.bias'".
    """
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            return f"lacks the tensor {name!r}"
        if name not in expected:
            return f"holds the tensor {name!r}, which has no place"
        if tensors[name].shape != expected[name].shape:
            return f"holds the tensor {name!r} with the shape {tensors[name].shape}, expected {expected[name].shape}"
    return None


def tensor_types(path: Path) -> dict[str, str]:
    """Name -> type, such as "F32", of the tensors in a safetensors file, without reading them; {} for other files."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            described = parse_json(file.read(size)) if size <= LARGEST_HEADER else {}
        return {name: str(tensor["dtype"]) for name, tensor in described.items() if name != "__metadata__"}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _foreign_numbers(path: Path) -> str | None:
    """What is wrong with a whole file of numbers that MLX does not know; None if it knows them all."""
    foreign = sorted(set(tensor_types(path).values()) - KNOWN_TYPES)
    if not foreign:
        return None

    named = " and ".join(NAMES_OF_TYPES.get(kind, kind) for kind in foreign)
    return f"holds {named} numbers, which are not supported; save it again in float32 or float16"
