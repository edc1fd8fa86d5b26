"""Python's search for garbage, kept away from imports: what they make stays, and there is a lot of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """A block that imports thousands of modules: nothing is searched in it, nor ever again what is there at its end."""
    wanted = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if wanted:
            gc.enable()
