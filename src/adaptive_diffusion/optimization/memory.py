"""The files of records: an adapter's own file, which any number of processes share, and a pipeline's history."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UnusableFile, plainly
from ..io.checksums import check, with_checksum
from ..io.files import ASSETS, read_document, write_json
from ..io.locks import in_turn
from .configuration import DomainConfig
from .records import FORMAT, DomainRecord, DomainRecords

SHIPPED = ASSETS / "tuned.json"
HISTORY_FORMAT = "adaptive-diffusion/optimization/1"

AGAIN = "move it away, and tune again with the agents that it was made with"
_NOT_AS_WRITTEN = (KeyError, TypeError, ValueError, AttributeError)


class Memory:
    """The user's records, in a file or in this object, which take precedence over the shipped ones.

    Args:
        path: JSON file; None: the records end with this object.

    Raises:
        UnusableFile: if the file cannot be used.
    """

    def __init__(self, path: str | Path | None):
        self.path = None if path is None else Path(path)
        self._own = DomainRecords()
        self.own()

    def own(self) -> DomainRecords:
        """One's own records, as the file holds them by now."""
        if self.path is not None and self.path.exists():
            self._own = read_records(self.path)
        return self._own

    @contextlib.contextmanager
    def changing(self) -> Iterator[DomainRecords]:
        """One's own records, to be changed: written when the block ends without an error, and by nobody else meanwhile.

        A file that does not exist yet begins empty.
        """
        if self.path is None:
            yield self._own
            return

        with in_turn(self.path):
            records = read_records(self.path) if self.path.exists() else DomainRecords()
            yield records
            write_records(self.path, records)

        self._own = records

    def find(self, model: str, guidance_scale: float, domain: str) -> DomainRecord | None:
        """The record of a model in a domain: one's own, else the shipped one, else None."""
        return self.own().find(model, guidance_scale, domain) or shipped().find(model, guidance_scale, domain)


def entry(records: DomainRecords, place: tuple[str, float, str], begin: DomainConfig) -> DomainRecord:
    """The record to change in `records`. A new one begins as the shipped one, or else with a configuration.

    Args:
        records: One's own.
        place: Model, guidance and domain, as `DomainRecords.find` takes them.
        begin: The configuration.
    """
    found = records.find(*place)
    if found is None:
        found = shipped().find(*place) or DomainRecord(*place, config=begin.to_dict(), source=begin.source)
        records.known.append(found)
    return found


def read_records(path: str | Path) -> DomainRecords:
    """Read a file of tuned configurations.

    Raises:
        UnusableFile: if it is missing, damaged, changed or of another kind.
    """
    content = read_document(path, FORMAT, "tuned configurations", "agent")
    try:
        records = DomainRecords.from_dict(content)
    except _NOT_AS_WRITTEN as error:
        raise UnusableFile(f"{path} is damaged ({plainly(error)}); {AGAIN}") from error

    check(path, content)
    return records


def write_records(path: str | Path, records: DomainRecords) -> None:
    """Write a file of tuned configurations atomically."""
    write_json(path, with_checksum(records.to_dict()))


def read_history(path: str | Path) -> tuple[list[dict[str, Any]], DomainRecords]:
    """Read what `write_history` wrote.

    Raises:
        UnusableFile: if it is missing, damaged, changed or of another kind.
    """
    content = read_document(path, HISTORY_FORMAT, "optimisation results", "agent")
    try:
        history, records = list(content["history"]), DomainRecords.from_dict(content["knowledge"])
    except _NOT_AS_WRITTEN as error:
        raise UnusableFile(f"{path} is damaged ({plainly(error)}); {AGAIN}") from error

    check(path, content)
    return history, records


def write_history(path: str | Path, history: list[dict[str, Any]], records: DomainRecords) -> None:
    """Write a pipeline's results, and the records of its domains, atomically as JSON.

    Raises:
        ValueError: if `path` does not end in `.json`.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise ValueError(f"a pipeline's file must end in .json, got {path.name!r}")

    write_json(path, with_checksum({"format": HISTORY_FORMAT, "history": history, "knowledge": records.to_dict()}))


def shipped() -> DomainRecords:
    """The records that ship."""
    return read_records(SHIPPED) if SHIPPED.exists() else DomainRecords()
