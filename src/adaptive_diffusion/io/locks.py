"""Locks on files. The system releases a lock when its process ends, however it ends, so none is ever left behind.

What is locked is a file beside the one that is meant, `.<name>.lock`, which says who holds the lock.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import UserError


@contextlib.contextmanager
def in_turn(path: str | Path) -> Iterator[None]:
    """Wait until no other process holds the lock of `path`, and hold it while the block runs."""
    with _locked(Path(path), wait=True):
        yield


@contextlib.contextmanager
def alone(*paths: str | Path) -> Iterator[None]:
    """Hold the locks of `paths` while the block runs.

    Raises:
        UserError: if another process holds one of them, naming that process.
    """
    with contextlib.ExitStack() as stack:
        for path in paths:
            stack.enter_context(_locked(Path(path), wait=False))

        yield


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[None]:
    place = path.with_name(f".{path.name}.lock")
    made = [folder for folder in place.absolute().parents if not folder.exists()]  # innermost first

    try:
        lock = _acquire(place, wait)
    except BlockingIOError:
        raise UserError(
            f"{path} is in use by {_holder(place)}; wait until it ends, or give this run files of its own "
            "(output, task.state)"
        ) from None

    try:
        lock.truncate(0)
        lock.write(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')} ({shlex.join(sys.argv)})")
        lock.flush()
        yield
    finally:
        place.unlink(missing_ok=True)  # while it is still locked; see _acquire
        lock.close()

        for folder in made:  # as after a block that was refused before it wrote anything
            with contextlib.suppress(OSError):
                folder.rmdir()


def _acquire(place: Path, wait: bool) -> IO[str]:
    """The open and locked file; whoever held the lock before has removed it, so that a new one is made."""
    import fcntl

    while True:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = open(place, "a+", encoding="utf-8")  # noqa: SIM115

        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if place.exists() and os.path.samestat(os.fstat(lock.fileno()), place.stat()):
                return lock
        except BaseException:
            lock.close()
            raise

        lock.close()


def _holder(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"
