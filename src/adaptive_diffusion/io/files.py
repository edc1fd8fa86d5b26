"""Files that are either whole or absent, and reading them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from ..errors import UserError

ASSETS = Path(__file__).parents[1] / "assets"
GIT_LFS = b"version https://git-lfs"
LARGEST_HEADER = 100_000_000  # bytes; as safetensors has it
KNOWN_TYPES = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "C64"}
NAMES_OF_TYPES = {"F64": "float64"}

_swept: set[Path] = set()  # folders in which this process has looked for what dead processes left


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends, and vanishes when it fails.

    The temporary file keeps the suffix of `path`, since writers choose the format by it. Parent folders are created,
    and what a process that was killed left there is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() or path.parent not in _swept:  # not for every picture of a new folder
        _swept.add(path.parent)
        _sweep(path.parent)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(path: str | Path, tensors: dict[str, mx.array], header: Mapping[str, str]) -> None:
    """Write a safetensors file.

    Args:
        path: A temporary path, see `atomic_path`.
        tensors: Name -> tensor.
        header: What else the file says.

    Raises:
        OSError: if the system refuses; MLX would say so in words of its own.
    """
    open(path, "wb").close()  # says why, if the file cannot be made
    try:
        mx.save_safetensors(str(path), tensors, dict(header))
    except RuntimeError as error:
        if "write" not in str(error):
            raise
        raise _refusal(path) from error


def _refusal(path: str | Path) -> OSError:
    """Why the system takes no more of a file: MLX does not tell, and Python does."""
    try:
        with open(path, "ab") as file:
            file.write(bytes(2**20))
            os.fsync(file.fileno())
    except OSError as error:
        return OSError(error.errno, error.strerror, str(path))
    return OSError(errno.EIO, os.strerror(errno.EIO), str(path))


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
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        path = Path(path)
        damaged = f"{path} cannot be read as safetensors: it is truncated or another kind of file; get or make it again"
        raise UserError(hindrance(path) or _foreign_numbers(path) or damaged) from error
    return cast("tuple[dict[str, mx.array], dict[str, str]]", loaded)


def tensor_types(path: Path) -> dict[str, str]:
    """Name -> type, such as "F32", of the tensors in a safetensors file, without reading them; {} if it is none."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            described = parse_json(file.read(size)) if size <= LARGEST_HEADER else {}
        return {name: str(tensor["dtype"]) for name, tensor in described.items() if name != "__metadata__"}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def hindrance(path: Path) -> str | None:
    """What keeps a file of any kind from being read: it is not there, not ours to read, or still to be fetched."""
    try:
        with open(path, "rb") as file:
            beginning = file.read(len(GIT_LFS))
    except FileNotFoundError:
        return f"there is no file {path}"
    except PermissionError:
        return f"{path} may not be read: permission denied; ask its owner, or change its permissions"
    except OSError:
        return None
    if beginning == GIT_LFS:
        return f"{path} is a pointer of git-lfs, not the file itself; get that: git lfs pull, or another download"
    return None


def _foreign_numbers(path: Path) -> str | None:
    """What is said of a whole file of numbers that MLX does not know."""
    foreign = sorted(set(tensor_types(path).values()) - KNOWN_TYPES)
    if not foreign:
        return None
    named = " and ".join(NAMES_OF_TYPES.get(kind, kind) for kind in foreign)
    return f"{path} holds {named} numbers, which are not supported; save it again in float32 or float16"


def parse_json(text: str | bytes) -> Any:
    """What a JSON text describes.

    Raises:
        ValueError: if it is none, or nested too deep for Python.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: if the file is missing, may not be read or holds something else.
    """
    try:
        content = parse_json(path.read_bytes())
    except (ValueError, OSError) as error:
        damaged = f"{path} cannot be read as JSON ({error}); get the file again"
        raise UserError(hindrance(path) or damaged) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, got {type(content).__name__}; get the file again")
    return content


def _sweep(folder: Path) -> None:
    """Remove the temporary files of processes that are no more."""
    for file in folder.glob(".*.partial*"):
        found = re.fullmatch(r"\..*\.(\d+)\.partial(\..*)?", file.name)
        if found and not _alive(int(found[1])):
            with contextlib.suppress(OSError):
                file.unlink()


def _alive(process: int) -> bool:
    """Whether there is a process with this number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Let a renaming survive a power cut; not every file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
