"""The state of a training in one safetensors file: its tensors, its counts, and the recipe of the training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from ..errors import UnusableFile
from .files import atomic_path
from .network_file import content_hash
from .tensor_file import misfit, read_tensors, write_tensors

FORMAT = "adaptive-diffusion/training-state/1"
SHOWN = 6  # differing settings in an error message
FACTS = ("domains", "pictures", "labels", "words")  # of a recipe, which are no settings


def write_state(path: str | Path, recipe: Mapping[str, Any], trees: Mapping[str, Any], **counts: int) -> None:
    """Write a state atomically: a process killed meanwhile leaves the previous state.

    Args:
        path: Target, ending in `.safetensors`; parent folders are created.
        recipe: Settings that a training must share to continue from the state, JSON types.
        trees: Name -> tree of tensors (of an `nn.Module`, an optimiser).
        counts: Whole numbers by name, e.g. the steps done.
    """
    tensors = _flat(trees)
    header = {"format": FORMAT, "recipe": json.dumps(recipe), "counts": json.dumps(counts)}
    header["checksum"] = content_hash(tensors, header)

    with atomic_path(path) as temporary:
        write_tensors(temporary, tensors, header)


def read_state(
    path: str | Path, recipe: Mapping[str, Any], like: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Read what `write_state` wrote.

    Args:
        path: The file.
        recipe: The recipe of the training that continues.
        like: Trees with the names and shapes that the state must have.

    Returns:
        The trees and the counts.

    Raises:
        UnusableFile: if the file is damaged, or of another recipe.
    """
    try:
        tensors, header = read_tensors(path)
    except UnusableFile as error:
        raise UnusableFile(f"{error}, or start anew with another file: task.state=FILE") from error
    if header.get("format") != FORMAT:
        raise UnusableFile(
            f"{path} is no training state of this version (format {FORMAT!r}); start anew with another file: "
            "task.state=FILE"
        )

    checksum = header.pop("checksum", None)
    if checksum != content_hash(tensors, header):
        raise _damaged(path, "its checksum does not match")

    # through JSON, as the recipe in the file went
    if differences := _differences(json.loads(header["recipe"]), json.loads(json.dumps(recipe))):
        raise UnusableFile(
            f"the training state {path} belongs to another recipe ({_in_words(differences)}); "
            "give what the state has, or start anew with other files: task.state=FILE output=FILE"
        )

    if trouble := misfit(tensors, _flat(like)):
        raise _damaged(path, f"it {trouble}")
    for name, tensor in tensors.items():
        if not mx.isfinite(tensor).all().item():
            raise _damaged(path, f"{name!r} holds NaN or infinity")

    counts = json.loads(header["counts"])
    if any(type(count) is not int or count < 0 for count in counts.values()):
        raise _damaged(path, f"its counts are {counts}")
    return cast("dict[str, Any]", tree_unflatten(list(tensors.items()))), counts


def state_tag(path: str | Path) -> dict[str, str]:
    """The tag of a tracked run by which a training finds the run that its state belongs to."""
    return {"training.state": hashlib.sha256(str(Path(path).absolute()).encode()).hexdigest()}


def hash_of(arrays: Iterable[np.ndarray]) -> str:
    """sha256 (hex) of arrays, such as a training's images and their labels."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def described(domains: Iterable[str], counts: Iterable[int], hashes: Iterable[str]) -> dict[str, str]:
    """The images of each domain as a recipe names them: their number, and the start of their hash."""
    return {
        domain: f"{count} with the hash {digest:.12}"
        for domain, count, digest in zip(domains, counts, hashes, strict=True)
    }


def check_seen(path: str | Path, seen: int, images: int, batch_size: int) -> None:
    """Refuse a state that has `seen` more images than the whole training takes; its last batch may go beyond `images`.

    Raises:
        UnusableFile: saying how many it has seen.
    """
    if seen - images >= batch_size:
        raise UnusableFile(
            f"the state {path} has seen {seen} images already, and images is {images}: "
            "give as many or more, or another state to start anew"
        )


def _flat(trees: Mapping[str, Any]) -> dict[str, mx.array]:
    """Dotted name -> tensor."""
    return dict(cast("list[tuple[str, mx.array]]", tree_flatten(dict(trees))))


def _damaged(path: str | Path, why: str) -> UnusableFile:
    return UnusableFile(f"the training state {path} is damaged ({why}); give another state to start anew")


def _differences(then: Any, now: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted name -> both values of each setting that differs."""
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return {} if then == now else {name: (then, now)}

    found: dict[str, tuple[Any, Any]] = {}
    for key in {**then, **now}:
        found |= _differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    return found


def _in_words(differences: dict[str, tuple[Any, Any]]) -> str:
    words = [
        f"{name if name.partition('.')[0] in FACTS else f'task.{name}'}: {then} in the state, {now} here"
        for name, (then, now) in differences.items()
    ]
    more = [f"and {len(words) - SHOWN} more"] if len(words) > SHOWN else []
    return "; ".join(words[:SHOWN] + more)
