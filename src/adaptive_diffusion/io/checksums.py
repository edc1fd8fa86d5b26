"""A checksum within a JSON file, which tells whether the file was damaged or changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UnusableFile

KEY = "checksum"


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add its checksum to the content of a JSON file.

    Args:
        content: JSON types; keys may be numbers, which JSON turns into texts.
    """
    return {**content, KEY: _checksum(content)}


def check(path: str | Path, content: Mapping[str, Any]) -> None:
    """Compare the content of a JSON file with its checksum.

    Files of version 0.1.0 hold no checksum, and pass.

    Args:
        path: The file.
        content: The object in it.

    Raises:
        UnusableFile: if the content does not have that checksum.
    """
    rest = {name: value for name, value in content.items() if name != KEY}
    if KEY in content and content[KEY] != _checksum(rest):
        raise UnusableFile(
            f"{path} is damaged, or was changed after it was written (its checksum does not match)",
            advice=f'make it again, or remove its "{KEY}" if you changed it yourself',
        )


def _checksum(content: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(content))  # as JSON gives it back
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
