"""The hash of what a file or a folder holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


def digest_of(path: Path) -> str:
    """sha256 (hex) of the content of a file; of a folder, of the names and contents of all files below it.

    Linked folders are followed, each once.

    Raises:
        OSError: for a file that cannot be read.
    """
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(file for file in _below(path) if file.is_file()):
            digest.update(os.fsencode(file.relative_to(path)) + b"\0" + digest_of(file).encode())
        return digest.hexdigest()

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _below(folder: Path) -> Iterator[Path]:
    """What lies below a folder, also by links; each folder once, since links can lead in a circle."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue

        seen.add(real)
        yield from (Path(place, name) for name in names)
