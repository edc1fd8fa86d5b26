"""What a long job says of itself while it goes on."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol

from tqdm import tqdm

from .counted import count, speed

log = logging.getLogger(__name__)

FIRST = 10.0  # seconds until the first line, by which the rest can be estimated
EVERY = 60.0  # seconds between two lines after it


class Watch(Protocol):
    """Who is told how far a job is. Both methods may raise KeyboardInterrupt, which ends the job as Ctrl-C does."""

    def progress(self, unit: str, done: int, total: int | None) -> None:
        """How many are done of what is counted, and how many there will be; None: nobody knows."""

    def may_end(self) -> None:
        """A point between two steps at which the job may be ended."""


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Within the block, somebody is told how far the jobs of this thread are."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def may_end() -> None:
    """A point between two steps of a `Progress` at which whoever watches may end the job of this thread."""
    if (watch := _watch.get()) is not None:
        watch.may_end()


class Progress:
    """A bar on a terminal; elsewhere a line after ten seconds and one a minute.

    A line says which share is done, how fast, and how many minutes are left. Lines are logged where somebody logs what
    is informative, and else written to stderr.

    Args:
        what: What goes on.
        total: Steps until it is done; None: nobody knows.
        unit: What is counted, one of it.
        initial: Steps that were done before.
        announced: Whether a line is written at the beginning, too.
        quiet: Whether nothing is said.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        *,
        unit: str = "step",
        initial: int = 0,
        announced: bool = False,
        quiet: bool = False,
    ):
        terminal = sys.stderr.isatty()
        self.what, self.total, self.unit = what, total, unit
        self.done = self._initial = initial
        options = {"mininterval": 1.0, "leave": False, "dynamic_ncols": True}
        self._bar = tqdm(total=total, initial=initial, unit=unit, desc=what, disable=quiet or not terminal, **options)
        self._lines = not quiet and not terminal
        self._shown = ""
        self._begun = time.perf_counter()
        self._next = self._begun + FIRST
        if self._lines and announced:
            say(what if total is None else f"{what}: {count(total, unit)}")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self, steps: int = 1) -> None:
        """Some more steps are done."""
        self.done += steps
        self._bar.update(steps)
        if (watch := _watch.get()) is not None:
            watch.progress(self.unit, self.done, self.total)
        now = time.perf_counter()
        if self._lines and now >= self._next and self.done > self._initial:
            self._next = now + EVERY
            say(f"{self.what}: {self._so_far(now - self._begun)}{self._shown}")

    def show(self, **values: Any) -> None:
        """Values to be shown beside the steps."""
        self._bar.set_postfix(**values)
        self._shown = "".join(f", {name} {value}" for name, value in values.items())

    def _so_far(self, seconds: float) -> str:
        """How much is done, how fast, and how long the rest takes at this rate."""
        rate = (self.done - self._initial) / seconds
        fast = speed(rate, self.unit)
        if self.total is None:
            return f"{count(self.done, self.unit)}, {fast}"

        share = f"{self.done / self.total:.0%} ({self.done:,} of {count(self.total, self.unit)})"
        if self.done >= self.total:
            return f"{share}, {fast}"
        left = (self.total - self.done) / rate / 60
        return f"{share}, {fast}, {'less than 1' if left < 1 else f'about {left:.0f}'} min left"


def say(line: str) -> None:
    """One line, to the log where it is kept, or else to stderr."""
    if log.isEnabledFor(logging.INFO):
        log.info("%s", line)
    else:
        print(line, file=sys.stderr, flush=True)
