"""Tensors from weight files: safetensors, and PyTorch's own formats without running code from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from ..errors import UnusableFile
from ..io.digest import digest_of
from ..io.tensor_file import read_tensors
from ..io.torch_files import read_torch_file
from ..models.diffusers import weight_files

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True)
class Weights:
    """Named tensors of a file.

    Attributes:
        tensors: Name -> tensor, as in the file.
        source: The file, or the index of the shards.
        sha256: Hash of the file, or of the hashes of its shards.
    """

    tensors: dict[str, mx.array]
    source: Path
    sha256: str


def read_weights(path: str | Path) -> Weights:
    """Read one weight file.

    Args:
        path: `.safetensors`, or PyTorch's `.pth`, `.pt`, `.bin`, `.ckpt` (see `torch_files`).

    Raises:
        UnusableFile: if there is no such file, or its content does not fit its suffix.
    """
    path = Path(path)
    if not path.is_file():
        raise UnusableFile(f"there is no weight file at {path}; give an existing .safetensors or .pth file")
    if path.suffix == ".safetensors":
        return Weights(read_tensors(path)[0], path, digest_of(path))
    if path.suffix in TORCH_SUFFIXES:
        return Weights({k: mx.array(v) for k, v in read_torch_file(path).items()}, path, digest_of(path))

    raise UnusableFile(f"{path} is no weight file; give .safetensors (best) or one of {', '.join(TORCH_SUFFIXES)}")


def read_weights_folder(folder: str | Path) -> Weights:
    """Read the weights of a Hugging Face model folder from one file or from shards; safetensors are preferred.

    Raises:
        UnusableFile: if the folder has no weights, or a shard is missing.
    """
    path = weight_files.find_weights(Path(folder), None)
    hashes = [digest_of(shard) for shard in weight_files.shards_of(path)]
    sha256 = hashlib.sha256("".join(hashes).encode()).hexdigest() if path.suffix == ".json" else hashes[0]
    return Weights(weight_files.read_weights(path), path, sha256)


def pick(weights: Weights, shapes: dict[str, tuple[int, ...]], what: str) -> dict[str, mx.array]:
    """Check the tensors of a network and return them as float32.

    Args:
        weights: Tensors of a file.
        shapes: Name -> shape of every tensor of the network; the file may have more.
        what: Name of the network in the error.

    Raises:
        UnusableFile: if a tensor is missing or has another shape; the first such tensor is named.
    """
    missing = [name for name in shapes if name not in weights.tensors]
    if missing:
        raise UnusableFile(
            f"{weights.source} holds no weights of {what}: it lacks {missing[0]!r} and {len(missing) - 1} more of "
            f"{len(shapes)} tensors"
        )

    for name, shape in shapes.items():
        if weights.tensors[name].shape != shape:
            actual = weights.tensors[name].shape
            raise UnusableFile(f"{weights.source} does not fit {what}: {name!r} has shape {actual}, expected {shape}")

    return {name: weights.tensors[name].astype(mx.float32) for name in shapes}


def conv_weight(weight: mx.array) -> mx.array:
    """PyTorch's (out, in, height, width) -> MLX's (out, height, width, in)."""
    # MLX would copy a transposed view in every convolution.
    return mx.contiguous(weight.transpose(0, 2, 3, 1))
