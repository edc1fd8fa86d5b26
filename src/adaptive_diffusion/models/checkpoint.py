"""Checkpoints of `SimpleUNet`, and the shipped checkpoint."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..diffusion.autoguidance import Autoguidance
from ..diffusion.checks import check_choice
from ..diffusion.facts import ModelFacts
from ..diffusion.schedule import PREDICTION_TYPES
from ..errors import UnusableFile, plainly
from ..io.files import ASSETS, stamp
from ..io.network_file import content_hash, flat_parameters, read_network, write_network
from .unet import SimpleUNet, UNetConfig

FORMAT = "adaptive-diffusion/simple-unet/1"
VARIABLE = "ADAPTIVE_DIFFUSION_MODEL"
BUILTIN_MODEL = ASSETS / "model.safetensors"


def save_model(
    path: str | Path, model: SimpleUNet, metadata: dict[str, Any] | None = None, dtype: mx.Dtype = mx.float32
) -> str:
    """Write a checkpoint atomically.

    Args:
        path: Target, ending in `.safetensors`; parent folders are created.
        model: The network.
        metadata: Metadata of the model, JSON types; None: `model.metadata`.
        dtype: Type of the stored weights; float16 halves the file.

    Returns:
        The content hash, which `load_model` checks.

    Raises:
        ValueError: if `path` does not end in `.safetensors`, or the model is no `SimpleUNet`.
        UnusableFile: if the metadata are invalid.
    """
    if not isinstance(model, SimpleUNet):
        raise ValueError(f"model must be a SimpleUNet, got {model!r:.80}")
    metadata = model.metadata if metadata is None else metadata
    _check_metadata(path, model.config, metadata)
    return write_network(path, model, asdict(model.config), metadata, format=FORMAT, dtype=dtype)


def load_model(path: str | Path, prediction_type: str | None = None) -> SimpleUNet:
    """Read a checkpoint of `save_model`, with float32 weights.

    The `metadata` of the network are those of the file, and the hash of the file as `content_hash`; with a prediction
    type that the file does not say, the hash is another one for each.

    Args:
        path: The `.safetensors` file.
        prediction_type: What the model predicts, `epsilon`, `v_prediction` or `sample`, where its file does not say.

    Raises:
        UnusableFile: if the file is missing, damaged or of another format, or its tensors do not fit its architecture.
        ValueError: for a prediction type that is unknown, or another one than the file says.
    """
    model, metadata = read_network(
        path, lambda config: SimpleUNet(UNetConfig(**config)), format=FORMAT, what="SimpleUNet", task="model"
    )
    _check_metadata(path, model.config, metadata)
    if prediction_type is not None:
        check_choice("prediction_type", prediction_type, PREDICTION_TYPES)
        if metadata.get("prediction_type") not in (None, prediction_type):
            raise ValueError(f"prediction_type={prediction_type} contradicts {path}: {metadata['prediction_type']}")
        if metadata.get("prediction_type") is None:
            told = {**metadata, "prediction_type": prediction_type}
            metadata = {**told, "content_hash": content_hash(flat_parameters(model), asdict(model.config), told)}
    model._metadata = metadata

    return model


def by_weaker_model(
    weak_model: str | Path, weight: float, low: float = -math.inf, high: float = math.inf
) -> Autoguidance:
    """Guidance by the model of a file of `save_model`, see `Autoguidance` and `load_model`."""
    return Autoguidance(load_model(weak_model), weight, low, high)


def _check_metadata(path: str | Path, config: UNetConfig, metadata: dict[str, Any]) -> None:
    """Refuse invalid metadata of a model."""
    try:
        facts = ("prediction_type", "guidance_scale", "noise_schedule", "bounded")
        ModelFacts(**{name: metadata[name] for name in facts if name in metadata})

        domains, labels = metadata.get("domains", []), metadata.get("labels", {})
        if not _names(domains) or not isinstance(labels, dict) or not all(map(_names, labels.values())):
            raise ValueError("domains must be a list of names, and labels such a list for each domain")

        named = len(domains), sum(len(labels.get(domain, ())) for domain in domains)
        if any(names > classes for names, classes in zip(named, config.num_classes, strict=False)):
            raise ValueError(f"{named[0]} domains and {named[1]} labels are named, for classes {config.num_classes}")

        counts = metadata.get("label_counts", {})
        if not isinstance(counts, dict) or not all(_counts(counts[d], len(labels.get(d, ()))) for d in counts):
            raise ValueError("label_counts must be, of each domain, a finite number >= 0 for each of its labels")
    except (ValueError, TypeError) as error:
        raise UnusableFile(f"{path} says of its model what cannot be: {plainly(error)}") from error


def _names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _counts(value: Any, labels: int) -> bool:
    numbers = isinstance(value, list | tuple) and all(isinstance(n, int | float) for n in value)
    return numbers and len(value) == labels and all(0 <= n < math.inf for n in value)


def load_builtin_model() -> SimpleUNet:
    """Load the shipped model, once per process as long as its file is the same.

    The environment variable `ADAPTIVE_DIFFUSION_MODEL` names another checkpoint, which then replaces the shipped model
    everywhere.

    Raises:
        UnusableFile: if the file is missing or damaged.
    """
    path = Path(os.environ.get(VARIABLE) or BUILTIN_MODEL)
    return _loaded(path, stamp(path))


@lru_cache(maxsize=2)
def _loaded(path: Path, _: tuple[int, ...]) -> SimpleUNet:
    return load_model(path)
