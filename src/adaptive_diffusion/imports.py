"""Python's garbage collector, kept away from the import of large packages: what it makes stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """A block that imports thousands of modules: the garbage collector rests in it, and then leaves alone what exists.

    Garbage of before would stay too: one block in a process, as early as can be.
    """
    wanted = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if wanted:
            gc.enable()
