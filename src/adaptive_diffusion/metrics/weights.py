"""Weight files, whatever their format, as tensors: safetensors first, PyTorch's own formats without running code."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from ..errors import UserError
from ..io.files import atomic_path, read_json
from ..io.tensor_file import read_tensors
from ..io.torch_files import read_torch_file

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True)
class Weights:
    """Named tensors and where they come from.

    Attributes:
        tensors: Name -> tensor, as in the file.
        source: The file or folder.
        sha256: Of the file, or of the file that `convert_weights` made it from: the published identity of weights.
    """

    tensors: dict[str, mx.array]
    source: Path
    sha256: str


def read_weights(path: str | Path) -> Weights:
    """Read one weight file.

    Args:
        path: `.safetensors`, or PyTorch's `.pth`, `.pt`, `.bin`, `.ckpt` (see `torch_files`).

    Raises:
        UserError: if there is no such file, or it cannot be read as what its suffix says.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no weight file at {path}; give an existing .safetensors or .pth file")
    if path.suffix == ".safetensors":
        tensors, header = read_tensors(path)
        return Weights(tensors, path, (header or {}).get("source_sha256") or _file_hash(path))
    if path.suffix in TORCH_SUFFIXES:
        return Weights({k: mx.array(v) for k, v in read_torch_file(path).items()}, path, _file_hash(path))
    raise UserError(f"{path} is no weight file; give .safetensors (best) or one of {', '.join(TORCH_SUFFIXES)}")


def read_weights_folder(folder: str | Path) -> Weights:
    """Read the weights of a Hugging Face model folder, in one file or in shards, safetensors first.

    Raises:
        UserError: if the folder holds none, or a shard is missing.
    """
    folder = Path(folder)
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return read_weights(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = sorted(set(read_json(index).get("weight_map", {}).values()))
            parts = [read_weights(folder / Path(shard).name) for shard in shards]
            tensors = {k: v for part in parts for k, v in part.tensors.items()}
            return Weights(tensors, folder, hashlib.sha256("".join(p.sha256 for p in parts).encode()).hexdigest())
    raise UserError(f"{folder} holds neither model.safetensors nor pytorch_model.bin; give a whole model folder")


def convert_weights(source: str | Path, target: str | Path) -> None:
    """Rewrite a weight file as safetensors, which loads faster and needs no trust; its published identity is kept.

    Raises:
        UserError: if `source` cannot be read or `target` does not end in `.safetensors`.
    """
    target = Path(target)
    if target.suffix != ".safetensors":
        raise UserError(f"the target must end in .safetensors, got {target.name!r}")
    weights = read_weights(source)
    with atomic_path(target) as temporary:
        mx.save_safetensors(
            str(temporary), weights.tensors, {"source": weights.source.name, "source_sha256": weights.sha256}
        )


def pick(weights: Weights, shapes: dict[str, tuple[int, ...]], what: str) -> dict[str, mx.array]:
    """The tensors a network needs, float32, after checking that they are there and of the right shape.

    Args:
        weights: What was read.
        shapes: Name -> shape of every tensor needed; others are ignored.
        what: What to call the network in the sentence.

    Raises:
        UserError: naming the first tensor that is missing or misshapen.
    """
    missing = [name for name in shapes if name not in weights.tensors]
    if missing:
        raise UserError(
            f"{weights.source} holds no weights of {what}: it lacks {missing[0]!r} and {len(missing) - 1} more of "
            f"{len(shapes)} tensors"
        )
    for name, shape in shapes.items():
        if weights.tensors[name].shape != shape:
            found = weights.tensors[name].shape
            raise UserError(f"{weights.source} does not fit {what}: {name!r} has shape {found}, expected {shape}")
    return {name: weights.tensors[name].astype(mx.float32) for name in shapes}


def conv_weight(weight: mx.array) -> mx.array:
    """PyTorch's (out, in, height, width) -> MLX's (out, height, width, in), contiguous, else each call copies it."""
    return mx.contiguous(weight.transpose(0, 2, 3, 1))


def _file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
