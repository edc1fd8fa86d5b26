"""A network in one safetensors file: weights, architecture, metadata, and a hash over all three.

Nothing is unpickled. A file whose format, names, shapes, numbers or checksum do not fit is refused with one sentence.

Other files refer to a network by its `content_hash`. The `checksum` guards the whole file, the content hash included.
Files of version 0.1.0 have no checksum, and their content hash leaves out the metadata.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from ..errors import UnusableFile, plainly
from .files import atomic_path, parse_json
from .tensor_file import misfit, read_tensors, write_tensors

log = logging.getLogger(__name__)

N = TypeVar("N", bound=nn.Module)


def flat_parameters(network: nn.Module) -> dict[str, mx.array]:
    """Dotted name -> tensor."""
    return dict(cast("list[tuple[str, mx.array]]", tree_flatten(network.parameters())))


def content_hash(weights: dict[str, mx.array], *described: dict[str, Any]) -> str:
    """sha256 (hex) of a network's descriptions, and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256("".join(json.dumps(values, sort_keys=True, default=str) for values in described).encode())
    for name in sorted(weights):
        array = np.array(weights[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_network(
    path: str | Path,
    network: nn.Module,
    config: dict[str, Any],
    metadata: dict[str, Any],
    *,
    format: str,
    dtype: mx.Dtype = mx.float32,
) -> str:
    """Write a network atomically.

    Args:
        path: Target, ending in `.safetensors`; parent folders are created.
        network: The network.
        config: Its architecture, JSON types.
        metadata: Facts about it, JSON types.
        format: Name and version of the format.
        dtype: Type of the stored weights; float16 takes half the space.

    Returns:
        The content hash that `read_network` will check.

    Raises:
        ValueError: if `path` does not end in `.safetensors`.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"a model file must end in .safetensors, got {path.name!r}")

    weights = {name: value.astype(dtype) for name, value in flat_parameters(network).items()}
    metadata = {key: value for key, value in metadata.items() if key != "content_hash"}  # of an earlier file
    digest = content_hash(weights, config, metadata)

    header = {
        "format": format,
        "config": json.dumps(config),
        "metadata": json.dumps(metadata),
        "content_hash": digest,
    }
    header["checksum"] = content_hash(weights, header)
    with atomic_path(path) as temporary:
        write_tensors(temporary, weights, header)
    return digest


def read_network(
    path: str | Path, build: Callable[[dict[str, Any]], N], *, format: str, what: str, task: str
) -> tuple[N, dict[str, Any]]:
    """Read what `write_network` wrote; weights become float32.

    Args:
        path: The file.
        build: Makes the network from an architecture.
        format: The format that the file must have.
        what: Name of the network, for error messages.
        task: What is trained, "model" or "encoder", for error messages.

    Returns:
        The network, and its metadata with the file's hash as `content_hash`.

    Raises:
        UnusableFile: if the file is missing, damaged, of another format, or does not fit its own description.
    """
    path = Path(path)
    if path.is_dir():
        raise UnusableFile(
            f"{path} is a folder; give a .safetensors file that a training wrote, or load the folder of a diffusers "
            "pipeline with model=diffusers"
        )
    if not path.is_file():
        raise UnusableFile(f"there is no model file at {path}; give a .safetensors file that a training wrote")

    weights, header = read_tensors(path)
    if header.get("format") != format:
        raise UnusableFile(
            f"{path} is a safetensors file but not a model of this project of the kind wanted (format "
            f"{header.get('format')!r}, expected {format!r}); give a file that training the {task} wrote"
        )

    try:
        config, metadata = parse_json(header["config"]), parse_json(header["metadata"])
        if not isinstance(config, dict) or not isinstance(metadata, dict):
            raise ValueError("its config and its metadata must be JSON objects")

        network = build(config)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UnusableFile(f"{path} does not describe a {what} ({plainly(error)}); write it again") from error

    if trouble := misfit(weights, flat_parameters(network)):
        raise UnusableFile(f"{path} does not hold the {what} that it describes: it {trouble}; write it again")
    _check_hash(path, weights, config, header)
    for name, value in weights.items():
        if not mx.isfinite(value).all().item():
            raise UnusableFile(
                f"{path}: tensor {name!r} holds NaN or infinity; the training went astray, train it again"
            )

    network.load_weights([(name, value.astype(mx.float32)) for name, value in weights.items()])
    mx.eval(network.parameters())
    network.eval()
    return network, {**metadata, "content_hash": header["content_hash"]}


def _check_hash(path: Path, weights: dict[str, mx.array], config: dict[str, Any], header: dict[str, str]) -> None:
    """Refuse a file that was changed after it was written."""
    guarded = {key: value for key, value in header.items() if key != "checksum"}
    if header.get("checksum") == content_hash(weights, guarded):
        return
    if "checksum" in header or header.get("content_hash") != content_hash(weights, config):
        raise UnusableFile(f"{path} was changed after it was written (its content hash does not match); get it again")

    log.warning("%s is a file of version 0.1.0, which cannot tell whether what it says of its model was changed", path)
