"""Model files of `SimpleUNet`, and the one that ships with the project."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..files import ASSETS
from ..network_file import read_network, write_network
from .unet import SimpleUNet, UNetConfig

FORMAT = "adaptive-diffusion/simple-unet/1"
VARIABLE = "ADAPTIVE_DIFFUSION_MODEL"
BUILTIN_MODEL = ASSETS / "model.safetensors"


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
    known = model.metadata if metadata is None else metadata
    return write_network(path, model, model.config.to_dict(), known, format=FORMAT, dtype=dtype)


def load_model(path: str | Path) -> SimpleUNet:
    """Read a model file written by `save_model`; weights become float32.

    The returned network's `metadata` holds what was stored, and the file's hash as `content_hash`.

    Raises:
        UserError: if the file is missing, damaged, of another format, or does not fit its own description.
    """
    model, metadata = read_network(
        path, lambda config: SimpleUNet(UNetConfig(**config)), format=FORMAT, what="SimpleUNet", task="model"
    )
    model._metadata = metadata
    return model


def load_builtin_model() -> SimpleUNet:
    """The trained model that ships with the project, or that of the file which `ADAPTIVE_DIFFUSION_MODEL` names.

    The environment variable makes another model the one that is used wherever none is given. A file is loaded once per
    process.

    Raises:
        UserError: if the file is missing or damaged.
    """
    return _loaded(Path(os.environ.get(VARIABLE) or BUILTIN_MODEL))


@cache
def _loaded(path: Path) -> SimpleUNet:
    return load_model(path)
