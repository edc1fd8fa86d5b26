"""The state of a training in one safetensors file: all that is needed to go on, and the recipe that it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from .errors import UserError
from .files import atomic_path, read_tensors

RECIPE = "run"  # the header's key of the recipe; the others are counts


def write_state(path: str | Path, recipe: Mapping[str, Any], trees: Mapping[str, Any], **counts: int) -> None:
    """Write a state; whoever is killed meanwhile leaves the one before.

    Args:
        path: Target, ending in `.safetensors`; parent folders are created.
        recipe: What has to be the same in a training that goes on from the state, JSON types.
        trees: Name -> tree of tensors (of an `nn.Module`, an optimiser).
        counts: Whole numbers to keep with them, e.g. the steps done.
    """
    arrays = dict(cast("list[tuple[str, mx.array]]", tree_flatten(dict(trees))))
    header = {RECIPE: _text(recipe), **{name: str(count) for name, count in counts.items()}}
    with atomic_path(path) as temporary:
        mx.save_safetensors(str(temporary), arrays, header)


def read_state(path: str | Path, recipe: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """Read what `write_state` wrote.

    Args:
        path: The file.
        recipe: That of the training that wants to go on.

    Returns:
        The trees and the counts.

    Raises:
        UserError: if the file is damaged, or belongs to another recipe.
    """
    arrays, header = read_tensors(path)
    if header.pop(RECIPE, None) != _text(recipe):
        raise UserError(
            f"the training state {path} belongs to another recipe (architecture, data, seed, ...); "
            "restore that recipe, or give another task.state to start anew"
        )
    trees = cast("dict[str, Any]", tree_unflatten(list(arrays.items())))
    return trees, {name: int(count) for name, count in header.items()}


def state_tag(path: str | Path) -> dict[str, str]:
    """The tag of a tracked run by which a training that goes on from a state finds its run again."""
    return {"training.state": hashlib.sha256(str(Path(path).absolute()).encode()).hexdigest()}


def _text(recipe: Mapping[str, Any]) -> str:
    return json.dumps(recipe, sort_keys=True)
