"""The hash of what a file or a folder holds."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def digest_of(path: Path) -> str:
    """sha256 (hex) of the content of a file; of a folder, of the names and contents of all files below it.

    Raises:
        OSError: for a file that cannot be read.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        digest = hashlib.sha256()
        for file in files:
            digest.update(os.fsencode(file.relative_to(path)) + b"\0" + digest_of(file).encode())
        return digest.hexdigest()

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
