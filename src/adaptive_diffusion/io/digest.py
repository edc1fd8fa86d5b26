"""The hash of what a file or a folder holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


def digest_of(path: Path) -> str:
    """sha256 (hex) of the content of a file; of a folder, of the names and contents of all files below it.

    Linked folders are followed, under each of their names; a link to a folder that it lies in is left out.

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


def _below(folder: Path, around: frozenset[str] = frozenset()) -> Iterator[Path]:
    """What lies below a folder, also by links, unless it is one of the folders `around` it; links can form a circle."""
    if (real := os.path.realpath(folder)) in around:
        return

    _, folders, names = next(os.walk(folder), ("", [], []))  # nothing where the folder may not be read
    yield from (folder / name for name in names)
    for name in folders:
        yield from _below(folder / name, around | {real})
