"""Model files: one safetensors file with the weights, the architecture, what is known of the model, and a hash.

Nothing is unpickled. A file whose names, shapes or hash do not fit is refused with one sentence.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..errors import UserError
from ..files import atomic_path, read_tensors
from .unet import SimpleUNet, UNetConfig

FORMAT = "adaptive-diffusion/simple-unet/1"
BUILTIN_MODEL = Path(__file__).parent.parent / "assets" / "model.safetensors"


def flat_parameters(model: SimpleUNet) -> dict[str, mx.array]:
    """Dotted name -> tensor."""
    return dict(cast("list[tuple[str, mx.array]]", tree_flatten(model.parameters())))


def content_hash(weights: dict[str, mx.array], config: dict[str, Any]) -> str:
    """sha256 (hex) of the architecture and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(weights):
        array = np.array(weights[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_model(
    path: str | Path, model: SimpleUNet, metadata: dict[str, Any] | None = None, dtype: mx.Dtype = mx.float32
) -> str:
    """Write a model file atomically.

    Args:
        path: Target, ending in `.safetensors`; parent folders are created.
        model: The network.
        metadata: What is known of the model, JSON types. None: `model.metadata`.
        dtype: Type of the stored weights; float16 halves the file.

    Returns:
        The content hash that `load_model` will check.

    Raises:
        UserError: if `path` does not end in `.safetensors`.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"a model file must end in .safetensors, got {path.name!r}")
    weights = {name: value.astype(dtype) for name, value in flat_parameters(model).items()}
    config = model.config.to_dict()
    digest = content_hash(weights, config)
    with atomic_path(path) as temporary:
        mx.save_safetensors(
            str(temporary),
            weights,
            {
                "format": FORMAT,
                "config": json.dumps(config),
                "metadata": json.dumps(model.metadata if metadata is None else metadata),
                "content_hash": digest,
            },
        )
    return digest


def load_model(path: str | Path) -> SimpleUNet:
    """Read a model file written by `save_model`; weights become float32.

    The returned network's `metadata` holds what was stored, and the file's hash as `content_hash`.

    Raises:
        UserError: if the file is missing, damaged, of another format, or does not fit its own description.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no model file at {path}; give the path of a .safetensors file that train.py wrote")
    weights, header = read_tensors(path)
    if header.get("format") != FORMAT:
        raise UserError(
            f"{path} is a safetensors file but not a model of this project (format {header.get('format')!r}, "
            f"expected {FORMAT!r}); give a file that train.py task=model wrote"
        )
    try:
        config, metadata = json.loads(header["config"]), json.loads(header["metadata"])
        model = SimpleUNet(UNetConfig(**config))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not describe a SimpleUNet ({error}); write it again with save_model") from error
    expected = {name: value.shape for name, value in flat_parameters(model).items()}
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            raise UserError(f"{path} lacks the tensor {name!r}; it is not a whole model file")
        if name not in expected:
            raise UserError(f"{path} holds the tensor {name!r}, which its architecture does not have")
        if weights[name].shape != expected[name]:
            raise UserError(f"{path}: tensor {name!r} has shape {weights[name].shape}, expected {expected[name]}")
    if content_hash(weights, config) != header.get("content_hash"):
        raise UserError(f"{path} was changed after it was written (its content hash does not match); get it again")
    model.load_weights([(name, value.astype(mx.float32)) for name, value in weights.items()])
    mx.eval(model.parameters())
    model._metadata = {**metadata, "content_hash": header["content_hash"]}
    return model


@cache
def load_builtin_model() -> SimpleUNet:
    """The trained model that ships with the project, loaded once per process.

    Raises:
        UserError: if the shipped file is missing or damaged.
    """
    return load_model(BUILTIN_MODEL)
