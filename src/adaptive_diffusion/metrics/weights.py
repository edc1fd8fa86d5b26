"""Tensors from weight files: safetensors, and PyTorch's own formats without running code from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from ..errors import UnusableFile
from ..io.digest import digest_of
from ..io.files import read_json
from ..io.tensor_file import read_tensors
from ..io.torch_files import read_torch_file

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True)
class Weights:
    """Named tensors of a file.

    Attributes:
        tensors: Name -> tensor, as in the file.
        source: The file or folder.
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
    folder = Path(folder)
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return read_weights(folder / name)

        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = sorted(set(read_json(index).get("weight_map", {}).values()))
            read = [read_weights(folder / Path(shard).name) for shard in shards]
            tensors = {name: tensor for weights in read for name, tensor in weights.tensors.items()}
            return Weights(tensors, folder, hashlib.sha256("".join(w.sha256 for w in read).encode()).hexdigest())

    raise UnusableFile(f"{folder} holds neither model.safetensors nor pytorch_model.bin; give a whole model folder")


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
