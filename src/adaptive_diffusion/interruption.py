"""Ctrl-C in a training that can go on: it waits for the end of a step, where the state is whole, and saves it."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

log = logging.getLogger(__name__)

interrupted = False  # whether this program is ending because of SIGINT or SIGTERM; `leaving` says so


class Resumable(Protocol):
    """A training with a state file."""

    @property
    def images(self) -> int:
        """Images seen so far."""
        ...

    def save_state(self) -> None:
        """Write all that is needed to go on; only between two steps."""
        ...


@contextlib.contextmanager
def saved_when_interrupted(trainer: Resumable) -> Iterator[Callable[[], None]]:
    """Let SIGINT and SIGTERM wait, as far as they would raise KeyboardInterrupt; the second one waits for a save alone.

    Yields:
        What is to be called after every step: if a signal came, it saves the state and raises KeyboardInterrupt.
    """
    received: list[int] = []
    saving = False

    def note(number: int, _: object) -> None:
        if received and not saving:
            log.info("interrupted within a step; the same command goes on from the state that was saved last, if any")
            raise KeyboardInterrupt
        received.append(number)

    def step_done() -> None:
        nonlocal saving
        if received:
            saving = True
            trainer.save_state()
            log.info("the state is saved after %d images; the same command goes on from there", trainer.images)
            raise KeyboardInterrupt

    ours = _interrupting()
    for number in ours:
        signal.signal(number, note)
    try:
        yield step_done
        step_done()  # if a signal came since the last step
    finally:
        for number in ours:
            signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the block ends; for a moment that must not be cut in two.

    Raises:
        KeyboardInterrupt: at the end, if a signal came.
    """
    received: list[int] = []
    ours = _interrupting()
    for number in ours:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.default_int_handler)
        if received:
            raise KeyboardInterrupt


def _interrupting() -> list[signal.Signals]:
    """The signals that would raise KeyboardInterrupt here."""
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in no other
        return []
    return [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is signal.default_int_handler]
