"""Locks on files. The system releases a lock when its process ends, however it ends, so no lock is left behind.

The lock of a file is a file beside it, `.<name>.lock`, in which the holder describes itself.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from .. import program
from ..errors import UnusableFile
from .addresses import without_login

TRIES = 100  # of making a file in a folder that other processes remove


@contextlib.contextmanager
def in_turn(path: str | Path, waiting: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """Wait until no other process holds the lock of `path`, and hold it while the block runs.

    Args:
        path: The file.
        waiting: Called with who holds the lock, in words, where somebody does.
    """
    with _locked(Path(path), waiting):
        yield


@contextlib.contextmanager
def alone(*paths: str | Path) -> Iterator[None]:
    """Hold the locks of `paths` while the block runs. A path that is given twice is locked once.

    Raises:
        UnusableFile: if any process, also this one, already holds one; it names that process.
    """
    with contextlib.ExitStack() as stack:
        for path in {os.path.abspath(path): path for path in paths}.values():
            stack.enter_context(_locked(Path(path)))
        yield


@contextlib.contextmanager
def _locked(path: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    place = path.with_name(f".{path.name}.lock")
    made = [folder for folder in place.absolute().parents if not folder.exists()]  # innermost first

    try:
        lock = _acquire(place, waiting)
    except BlockingIOError:
        raise UnusableFile(
            f"{path} is in use by {_holder(place)}; wait until it ends, or write to another file"
        ) from None

    try:
        lock.truncate(0)
        command = without_login(program.running())
        lock.write(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')} ({command})")
        lock.flush()
        yield
    finally:
        place.unlink(missing_ok=True)  # while it is still locked; see _acquire
        lock.close()

        for folder in made:  # stay only if the block wrote into them
            with contextlib.suppress(OSError):
                folder.rmdir()


def _acquire(place: Path, waiting: Callable[[str], None] | None) -> IO[str]:
    """Open and lock the file. Its last holder has removed it by then, so it may have to be made again."""
    import fcntl

    while True:
        lock = _opened(place)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is None:
                    raise
                waiting(_holder(place))
                fcntl.flock(lock, fcntl.LOCK_EX)

            # a lock on a removed file would keep nobody out
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), place.stat()):
                    return lock
        except BaseException:
            lock.close()
            raise
        lock.close()


def _opened(place: Path) -> IO[str]:
    """Open the file in its folder, which the holder of another lock may just be removing; see `_locked`."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            place.parent.mkdir(parents=True, exist_ok=True)
            return open(place, "a+", encoding="utf-8")

    place.parent.mkdir(parents=True, exist_ok=True)  # the last try says why
    return open(place, "a+", encoding="utf-8")


def _holder(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"
