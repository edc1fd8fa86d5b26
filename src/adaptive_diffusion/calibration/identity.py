"""Which model was calibrated: the hash of its weights, or a fingerprint where there is only a name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from ..diffusion.fingerprint import Fingerprint
from ..diffusion.guided_model import GuidedModel


def fingerprint_of(model: GuidedModel) -> Fingerprint | None:
    """The fingerprint of a model, which is evaluated once; None if its identity is a hash of what it is made of."""
    if model.state_shape is None or _is_hash(model):
        return None
    return Fingerprint.of(model.of_images(0, 1), model.state_shape)


def _is_hash(model: GuidedModel) -> bool:
    """Whether the identity of a model was computed from its files or its weights."""
    content = getattr(model.network, "metadata", {}).get("content_hash")
    known = content or (weights_hash(model.network) if model.identity else "")
    return bool(known) and model.identity.startswith(known)


def weights_hash(denoiser: Any) -> str:
    """Hash of the weights of a module of MLX or PyTorch; "" for anything else."""
    weights: Mapping[str, Any] = {}
    if isinstance(denoiser, nn.Module):
        weights = dict(tree_flatten(denoiser.parameters()))
    elif hasattr(denoiser, "state_dict"):
        weights = {name: value.detach().cpu() for name, value in denoiser.state_dict().items()}
    if not weights:
        return ""

    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        array = np.array(value.astype(mx.float32)) if isinstance(value, mx.array) else value.float().numpy()
        digest.update(f"{name} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
