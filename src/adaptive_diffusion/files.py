"""Files that are either whole or absent, and reading them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from .errors import UserError

ASSETS = Path(__file__).parent / "assets"


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends, and vanishes when it fails.

    The temporary file keeps the suffix of `path`, since writers choose the format by it. Parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def whence(path: str | Path) -> str:
    """What a user is told of the file that something was read from: `shipped <name>`, or its path, cut short."""
    path = Path(path).absolute()
    if path.is_relative_to(ASSETS):
        return f"shipped {path.name}"
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def read_tensors(path: str | Path) -> tuple[dict[str, mx.array], dict[str, str]]:
    """Tensors and header of a safetensors file.

    Raises:
        UserError: if the file is truncated or of another kind.
    """
    try:
        loaded: Any = mx.load(str(path), format="safetensors", return_metadata=True)
        mx.eval(loaded[0])
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as safetensors: it is truncated or another kind of file; get or make it again"
        ) from error
    return cast("tuple[dict[str, mx.array], dict[str, str]]", loaded)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: if the file is missing or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); get the file again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, got {type(content).__name__}; get the file again")
    return content
