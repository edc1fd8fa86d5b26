"""The two kinds of failure a user meets, and the exit codes of `sample.py` and `train.py` for them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(ValueError):
    """Something the user gave cannot be used. One sentence: what was given, what is accepted, what to do. Exit 2."""


class MachineError(RuntimeError):
    """The machine refused: a full or read-only disk, a locked database. One sentence. Exit 1."""


def plainly(error: BaseException) -> str:
    """What an error of Python or a library says, on one line and in the words of whoever wrote the file or setting."""
    text = str(error).strip().partition("\n")[0].rstrip(".:")
    if isinstance(error, KeyError):
        return f"it lacks {error.args[0]!r}"
    if found := re.search(r"unexpected keyword argument ('.*?')", text):
        return f"it has {found[1]}, which is unknown"
    if found := re.search(r"missing .* arguments?: (.*)", text):
        return f"it lacks {found[1]}"
    if isinstance(error, TypeError | OverflowError | AttributeError):
        return "a value is out of range or of another kind than expected"
    return text or "nothing more is known"


def run_program(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Leave the process with what `main` returns for its arguments; a `UserError` is printed, and the code is 2."""
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
