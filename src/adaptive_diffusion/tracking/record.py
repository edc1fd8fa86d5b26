"""What a run recorded, as a file: what a server did not take can be recorded later."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UnusableFile
from ..io.files import write_json

FILE = "unrecorded.json"


@dataclass(frozen=True)
class Input:
    """What a run was made from.

    Attributes:
        kind: "dataset" or "model".
        name: E.g. of a domain.
        digest: Hash of the content, hex.
        source: Where it is.
        context: What it was for, e.g. "evaluation".
    """

    kind: str
    name: str
    digest: str
    source: str
    context: str


@dataclass(kw_only=True)
class Record:
    """All that a run recorded.

    Attributes:
        server: Address of the server that the run was meant for.
        experiment: Name of its experiment.
        name: Of the run.
        run_id: Of the run on the server; None if the server never knew it.
        started: Milliseconds since 1970.
        ended: The same; None while it goes on.
        status: As MLflow has it.
        params: Settings.
        tags: Labels.
        metrics: (name, value, milliseconds since 1970, step) of every number.
        inputs: What it was made from.
        folders: (path relative to the file of the record, name among the artifacts or None) of folders and files.
    """

    server: str
    experiment: str
    name: str
    run_id: str | None = None
    started: int = field(default_factory=lambda: now())
    ended: int | None = None
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    folders: list[tuple[str, str | None]] = field(default_factory=list)

    def save(self, folder: str | Path) -> None:
        """Write the file into the folder of the run, or replace it."""
        write_json(Path(folder) / FILE, asdict(self))


def load_record(path: Path) -> Record:
    """Read the file of a record.

    Raises:
        UnusableFile: if it is damaged, or of another kind.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["inputs"] = [Input(**given) for given in content["inputs"]]
        return Record(**content)
    except (ValueError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise UnusableFile(f"{path} is damaged, or not the record of a run") from error


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
