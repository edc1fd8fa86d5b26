"""Files that are written whole or not at all, and what keeps a file from being read."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import UnusableFile
from .host import host

ASSETS = Path(__file__).parents[1] / "assets"
GIT_LFS = b"version https://git-lfs"  # the beginning of a pointer instead of a large file

_swept: set[Path] = set()  # folders in which this process has looked for what dead processes left


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends, and vanishes when it fails.

    The temporary file keeps the suffix of `path`, since writers choose the format by it. Parent folders are created,
    and the temporary files of this host's killed processes are removed there.

    Raises:
        OSError: if the system refuses; it names `path`, which not every library's error does.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() or path.parent not in _swept:  # not for every image of a new folder
            _swept.add(path.parent)
            _sweep(path.parent)

        temporary = partial_path(path)
        try:
            yield temporary

            # the content has to be on the disk before the name is
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is None:  # not the system's
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def home_path(path: str | Path) -> Path:
    """A path in which `~` is the home folder; a name such as `~a.png`, of which nobody is a user, stays as it is."""
    return Path(os.path.expanduser(path))


def partial_path(path: Path) -> Path:
    """A temporary path beside `path` that no other process has, also not one of another host that shares the folder."""
    return path.with_name(f".{path.stem}.{_here()}.{os.getpid()}.partial{path.suffix}")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON types atomically, indented."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_csv(path: str | Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a table atomically, its headings first."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def parse_json(text: str | bytes) -> Any:
    """What a JSON text describes.

    Raises:
        ValueError: if it is not JSON, or nested too deep for Python.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UnusableFile: if the file cannot be read or holds something else.
    """
    try:
        content = parse_json(path.read_bytes())
    except (ValueError, OSError) as error:
        trouble = why_unreadable(path) or f"cannot be read as JSON ({error}); get the file again"
        raise UnusableFile(f"{path} {trouble}") from error

    if not isinstance(content, dict):
        raise UnusableFile(f"{path} must hold a JSON object, got {type(content).__name__}; get the file again")
    return content


def read_document(path: str | Path, form: str, what: str, training: str) -> dict[str, Any]:
    """The object in a JSON file that names its format.

    Args:
        path: The file.
        form: The value of its key `format`.
        what: What the file has to hold, in the plural, for error messages.
        training: What makes such a file, one of `program.TRAININGS`.

    Raises:
        UnusableFile: if the file is missing, not JSON or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise UnusableFile(f"there are no {what} at {path}", training, advice="give another path or none, or make them")

    try:
        content: Any = parse_json(path.read_bytes())
    except (ValueError, OSError) as error:
        if trouble := why_unreadable(path):
            raise UnusableFile(f"{path} {trouble}") from error
        advice = "give another path, or move it away and make it again with the settings that it was made with"
        raise UnusableFile(f"{path} holds no {what}: it cannot be read as JSON ({error})", advice=advice) from error

    if not isinstance(content, dict) or content.get("format") != form:
        raise UnusableFile(f"{path} holds no {what} of this project (format {form!r})")
    return content


def stamp(path: Path) -> tuple[int, ...]:
    """Time of the last change (ns) and size (bytes) of a file; () where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size


def describe_path(path: str | Path) -> str:
    """How a file is named to users: `shipped <name>`, else its path, relative to the working folder if below it."""
    path = Path(path).absolute()
    if path.is_relative_to(ASSETS):
        return f"shipped {path.name}"

    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def why_unreadable(path: str | Path, folder: bool = False) -> str | None:
    """What keeps a file or folder from being read, e.g. `does not exist`; None if nothing does.

    Args:
        path: The path.
        folder: Whether it has to be a folder.
    """
    try:
        is_folder = os.path.isdir(path) if os.stat(path) else False
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be opened ({getattr(error, 'strerror', None) or error})".lower()

    if is_folder != folder:
        return "is a folder" if is_folder else "is no folder"
    if not folder and not os.path.isfile(path):
        return "is no file that can be read from the beginning to the end"

    denied = "may not be read (permission denied); ask its owner, or change its permissions"
    if not os.access(path, os.R_OK | os.X_OK if folder else os.R_OK):
        return denied
    if folder:
        return None

    try:
        with open(path, "rb") as file:
            beginning = file.read(len(GIT_LFS))
    except PermissionError:  # macOS protects some folders beyond what `os.access` knows
        return denied
    except OSError:
        return None
    if beginning == GIT_LFS:
        return "is a pointer of git-lfs, not the file itself; get that: git lfs pull, or another download"
    return None


def _sweep(folder: Path) -> None:
    """Remove the temporary files of processes of this host that have ended; of others' nothing is known."""
    for file in folder.glob(".*.partial*"):
        found = re.fullmatch(rf"\..*\.{_here()}\.(\d+)\.partial(\..*)?", file.name)
        if found and not alive(int(found[1])):
            with contextlib.suppress(OSError):
                file.unlink()


def _here() -> str:
    """Eight characters that tell this host from others in names of files."""
    return hashlib.sha256(host().encode()).hexdigest()[:8]


def alive(process: int) -> bool:
    """Whether there is a process with this number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's process
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
