"""A checksum within a JSON file, which tells whether the file was damaged or changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UnusableFile
from .files import ASSETS

KEY = "checksum"

# sha256 of the shipped files, which were written before files held a checksum
SHIPPED = {
    "schedules.json": "1db29c9d82bf585a35d961f2ddfa66730045a2110f7cd1506a6f25e4737c0b29",
    "tuned.json": "4db5cc1ff57a6f538654e6ae41e448b990059be256e5962c97a71af18a655c17",
    "quality.json": "43d65598b0959f3babf32cae5fa70e4d63b335e9d86d7100d785469ee962a221",
}


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add its checksum to the content of a JSON file.

    Args:
        content: JSON types; keys may be numbers, which JSON turns into texts.
    """
    return {**content, KEY: _checksum(content)}


def check(path: str | Path, content: Mapping[str, Any]) -> None:
    """Compare the content of a JSON file with its checksum.

    Files of version 0.1.0 hold no checksum. They pass, unless they shipped and differ from the shipped file.

    Args:
        path: The file.
        content: The object in it.

    Raises:
        UnusableFile: if the content does not have that checksum.
    """
    rest = {name: value for name, value in content.items() if name != KEY}
    path = Path(path)

    if KEY in content:
        intact = content[KEY] == _checksum(rest)
    elif path.absolute().parent == ASSETS and path.name in SHIPPED:
        intact = hashlib.sha256(path.read_bytes()).hexdigest() == SHIPPED[path.name]
    else:
        intact = True

    if not intact:
        raise UnusableFile(
            f"{path} is damaged, or was changed after it was written (its checksum does not match)",
            advice=f'make it again, or remove its "{KEY}" if you changed it yourself',
        )


def _checksum(content: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(content))  # as JSON gives it back
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
