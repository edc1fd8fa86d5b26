"""What a long job says of itself while it goes on."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)

EVERY = 60.0  # seconds between two lines


class Progress:
    """A bar on a terminal; elsewhere a line at the beginning and one a minute.

    Lines are logged where somebody logs what is informative, and else written to stderr.

    Args:
        what: What goes on.
        total: Steps until it is done; None: nobody knows.
        unit: What is counted, one of it.
        initial: Steps that were done before.
        quiet: Whether nothing is said.
    """

    def __init__(
        self, what: str, total: int | None = None, *, unit: str = "step", initial: int = 0, quiet: bool = False
    ):
        terminal = sys.stderr.isatty()
        self.what, self.total, self.unit = what, total, unit
        self.done = self._initial = initial
        self._bar = tqdm(
            total=total, initial=initial, unit=unit, desc=what, disable=quiet or not terminal, mininterval=1.0
        )
        self._lines = not quiet and not terminal
        self._shown = ""
        self._begun = self._told = time.perf_counter()
        if self._lines:
            say(what if total is None else f"{what}: {total} {unit}s")

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
        now = time.perf_counter()
        if self._lines and now - self._told >= EVERY:
            self._told = now
            so_far = f"{self.done}" if self.total is None else f"{self.done} of {self.total}"
            minutes = (now - self._begun) / 60
            say(f"{self.what}: {so_far} {self.unit}s in {minutes:.0f} min{self._left(minutes)}{self._shown}")

    def show(self, **values: Any) -> None:
        """Values to be shown beside the steps."""
        self._bar.set_postfix(**values)
        self._shown = "".join(f", {name} {value}" for name, value in values.items())

    def _left(self, minutes: float) -> str:
        """How long the rest takes at the rate so far."""
        taken = self.done - self._initial
        return "" if self.total is None else f", about {minutes * max(0, self.total - self.done) / taken:.0f} min left"


def say(line: str) -> None:
    """One line, to the log where it is kept, or else to stderr."""
    if log.isEnabledFor(logging.INFO):
        log.info("%s", line)
    else:
        print(line, file=sys.stderr, flush=True)
