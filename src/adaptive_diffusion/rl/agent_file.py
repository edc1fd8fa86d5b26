"""Files of agents: a zip of `agent.json` and `tensors.safetensors`. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import UnusableFile
from ..io.archive import check_unpacked, why_damaged
from ..io.files import atomic_path, parse_json
from ..io.tensor_file import read_tensors, write_tensors

FORMAT = "adaptive-diffusion/agent/1"
HEADER, TENSORS = "agent.json", "tensors.safetensors"


def checked_path(path: str | Path) -> Path:
    """The path, if an agent can have it.

    Raises:
        ValueError: if it does not end in `.zip`.
    """
    path = Path(path)
    if path.suffix != ".zip":
        raise ValueError(f"an agent's file must end in .zip, got {path.name!r}")
    return path


def write_agent(path: str | Path, header: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """Write an agent atomically.

    Args:
        path: Target, ending in `.zip`; parent folders are created.
        header: JSON types.
        tensors: float32, integers or bytes; at least one.

    Raises:
        ValueError: if `path` does not end in `.zip`.
    """
    path = checked_path(path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / TENSORS
        write_tensors(file, {name: mx.array(value) for name, value in tensors.items()}, {})
        content = file.read_bytes()

    header = {"format": FORMAT, **header}
    text = json.dumps({**header, "hash": _hash(header, content)})
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(HEADER, text)
        archive.writestr(TENSORS, content)


def read_agent(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `write_agent` wrote: the header, to which `hash` was added, that of all the content, and the tensors.

    Raises:
        UnusableFile: if the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UnusableFile(f"there is no agent at {path}; give the path of a .zip file that an agent was saved to")

    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked(archive, "get the agent again, from where it was saved")
            header: Any = parse_json(archive.read(HEADER))
            content = archive.read(TENSORS)
    except UnusableFile:
        raise
    except KeyError:
        raise UnusableFile(
            f"{path} is a zip file but no agent of this project (it lacks {HEADER} or {TENSORS})"
        ) from None
    except Exception as error:  # zlib's and zipfile's own, which have no common kind
        raise UnusableFile(f"{path} cannot be read as an agent: {why_damaged(error)}") from error

    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UnusableFile(f"{path} is no agent of this project of the kind wanted (format {FORMAT!r})")
    if header.get("hash") != _hash({key: value for key, value in header.items() if key != "hash"}, content):
        raise UnusableFile(f"{path} was changed after it was written (its content hash does not match); get it again")

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / TENSORS
        file.write_bytes(content)
        return header, {name: np.array(value) for name, value in read_tensors(file)[0].items()}


def _hash(header: dict[str, Any], content: bytes) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode() + content).hexdigest()
