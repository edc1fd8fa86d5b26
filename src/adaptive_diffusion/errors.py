"""The two kinds of failure a user meets, and the exit codes of `sample.py` and `train.py` for them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(ValueError):
    """Something the user gave cannot be used. One sentence: what was given, what is accepted, what to do. Exit 2."""


class MachineError(RuntimeError):
    """The machine refused: a full or read-only disk, a locked database. One sentence. Exit 1."""


def run_program(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Leave the process with what `main` returns for its arguments; a `UserError` is printed, and the code is 2."""
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
