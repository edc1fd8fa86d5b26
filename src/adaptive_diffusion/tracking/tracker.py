"""What programs know of a tracker: where runs are recorded, and the run that is open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .record import Input


class Run:
    """An open run that records nothing; `Tracker` opens it.

    Attributes:
        page: Address of the run once the UI is open, or None.
    """

    page: str | None = None

    def tags(self, values: Mapping[str, str]) -> None:
        """Label the run with what is known only now."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers; in names, MLflow gets `_` in place of all but letters, digits and `_ - . space : /`."""

    def inputs(self, *inputs: Input) -> None:
        """Name datasets and models that the run uses, with their hashes."""

    def keep(self, path: str | Path, name: str | None = None) -> None:
        """Log a file, or every file below a folder, as an artifact, in a folder called `name` if that is given."""

    def image(self, pixels: np.ndarray, key: str, step: int) -> None:
        """Log one image, (H, W, C) uint8, of a series that the UI shows with a slider."""


@dataclass(frozen=True)
class Finished:
    """A run that has finished.

    Attributes:
        metrics: Its numbers.
        folder: Where its files are kept; None if they are gone.
    """

    metrics: Mapping[str, float]
    folder: Path | None


class Tracker:
    """Where runs are recorded; nowhere, as long as nothing is overridden."""

    @contextmanager
    def open(
        self,
        name: str,
        *,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        resume: Mapping[str, str] | None = None,
        folder: str | Path | None = None,
    ) -> Iterator[Run]:
        """Open a run; it ends FINISHED, FAILED on an exception, KILLED on an interruption.

        Args:
            name: Shown in the UI.
            params: Settings.
            tags: Labels that can be searched for.
            resume: Tags of an unfinished run to go on with, if there is one with these settings.
            folder: Of the run's files, where a record is kept that a server does not take; None: none is kept.
        """
        yield Run()

    @contextmanager
    def claimed(self, fingerprint: str) -> Iterator[Finished | None]:
        """A block that does what has this fingerprint; another process that claims the same waits until it ends.

        Yields:
            The run with this fingerprint that has FINISHED, so that nothing is left to do; None if there is none.
        """
        yield None

    def how_to_look(self) -> str | None:
        """The command that opens the UI; None where none is needed, or where only the files can be looked at."""
        return None


class NoTracker(Tracker):
    """Records nothing, and lets no process wait for another."""
