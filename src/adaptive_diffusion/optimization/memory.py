"""Where a domain adapter keeps what it knows: in a file that any number of processes share, or in itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .configuration import DomainConfig
from .knowledge import SHIPPED, Knowledge, Known, changing, read_knowledge


class Memory:
    """Knowledge of one's own, above what ships with the project.

    Args:
        path: JSON file; None: what is learned ends with this object.

    Raises:
        UserError: if the file cannot be used.
    """

    def __init__(self, path: str | Path | None):
        self.path = None if path is None else Path(path)
        self._own = Knowledge()
        self.own()

    def own(self) -> Knowledge:
        """What the file says by now."""
        if self.path is not None and self.path.exists():
            self._own = read_knowledge(self.path)
        return self._own

    @contextlib.contextmanager
    def changing(self) -> Iterator[Knowledge]:
        """One's own knowledge, to be changed; kept when the block ends without an error."""
        if self.path is None:
            yield self._own
            return
        with changing(self.path) as knowledge:
            yield knowledge
        self._own = knowledge

    def find(self, model: str, guidance_scale: float, domain: str) -> Known | None:
        """What is known of a model in a domain: by oneself, else of what ships; None if nothing."""
        return self.own().find(model, guidance_scale, domain) or _shipped().find(model, guidance_scale, domain)


def entry(knowledge: Knowledge, place: tuple[str, float, str], begin: DomainConfig) -> Known:
    """What is to be changed in `knowledge`; if it is new, it begins as what ships, or else with a configuration.

    Args:
        knowledge: One's own.
        place: Model, guidance and domain, as `Knowledge.find` takes them.
        begin: The configuration.
    """
    found = knowledge.find(*place)
    if found is None:
        found = _shipped().find(*place) or Known(*place, config=begin.to_dict(), source=begin.source)
        knowledge.known.append(found)
    return found


def _shipped() -> Knowledge:
    return read_knowledge(SHIPPED) if SHIPPED.exists() else Knowledge()
