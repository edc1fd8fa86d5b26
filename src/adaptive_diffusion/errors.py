"""The kinds of failure a user meets, and what is said of them: one sentence, and an exit code that fits.

The library raises `ValueError` for an argument, `Unusable` and `UnusableFile` for what the arguments stand for, and
`MissingPackage`. Programs say `UserError`, and tell all of them as the user's mistakes.

Exit code 0 is success, 2 the user's mistake, 1 the machine's (or a bug), 130 an interruption.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from . import program

# conf/hydra/default.yaml sends this logger to the job's log file only
traceback_log = logging.getLogger("adaptive_diffusion.traceback")

WHERE = "with paths.outputs and paths.mlruns (sample, train), or --output (other commands)"


class Unusable(ValueError):
    """Things that are right by themselves do not fit each other, e.g. a label and a model without classes.

    Args:
        trouble: What was given, what is accepted; without `advice`, also what to do.
        training: Which training makes what is wanted, for `program.training`; None: none does.
        advice: What to do, apart from the trouble, for which another caller may know other advice.
        **settings: Of that training.
    """

    def __init__(self, trouble: str, training: str | None = None, *, advice: str = "", **settings: Any):
        super().__init__(f"{trouble}; {advice}" if advice else trouble)
        self.trouble, self.training, self.settings = trouble, training, settings


class UnusableFile(Unusable):
    """A file or folder is missing, damaged, of another kind, made for something else, or in use."""


class MissingPackage(ImportError):
    """Something was asked for that takes a package which is not installed. One sentence, which says how to get it."""


class UserError(ValueError):
    """What a program's user gave cannot be used. One sentence: what was given, what is accepted, what to do. Exit 2."""


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


def explain(error: BaseException) -> tuple[str, int]:
    """One sentence about an error, and the exit code it deserves."""
    if known := known_error(error):
        return sentence(known), 1 if isinstance(known, MachineError) else 2
    for link in chain(error):
        if isinstance(link, OSError) and link.errno is not None:
            return _about_files(link), 1
        if isinstance(link, MemoryError) or (isinstance(link, RuntimeError) and "allocate" in str(link)):
            return f"not enough memory ({str(link).strip() or 'MemoryError'}); use a smaller batch_size", 1
    if isinstance(error, subprocess.CalledProcessError):
        command = error.cmd if isinstance(error.cmd, str) else shlex.join(map(str, error.cmd))
        return f"{command} ended with exit code {error.returncode}; what it said is above", 1
    return f"unexpected {type(error).__name__}: {error} (HYDRA_FULL_ERROR=1 shows where)", 1


def known_error(error: BaseException) -> BaseException | None:
    """The first link of an error's chain that says in one sentence what the user can do."""
    meant = (Unusable, MissingPackage, FloatingPointError, UserError, MachineError)
    return next((link for link in chain(error) if isinstance(link, meant)), None)


def sentence(error: BaseException) -> str:
    """What an error says, and the command that trains what is wanted, if it asks for a training."""
    if isinstance(error, Unusable) and error.training:
        return f"{error}: {program.training(error.training, **error.settings)}"
    return str(error)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what caused it."""
    return _links(error, lambda link: link.__cause__ or (None if link.__suppress_context__ else link.__context__))


def was_interrupted(error: BaseException | None) -> bool:
    """Whether an error came of an interruption, as where it hits code that then cleans up what is half made."""
    links = _links(error, lambda link: link.__cause__ or link.__context__)
    return any(isinstance(link, KeyboardInterrupt) for link in links)


def _links(
    error: BaseException | None, before: Callable[[BaseException], BaseException | None]
) -> Iterator[BaseException]:
    """An error, that before it, and so on, each once: errors that were raised again can form a circle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = before(error)


def _about_files(error: OSError) -> str:
    what = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: cannot write{what}; free some space, or write elsewhere, {WHERE}"
    if error.errno == errno.EROFS:
        return f"cannot write{what} (read-only file system); write elsewhere, {WHERE}"

    why = os.strerror(error.errno or 0).lower()
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no access{what and ' to'}{what} ({why}); give what you may read, or write elsewhere, {WHERE}"
    if error.errno in (errno.ENOTDIR, errno.ENOENT, errno.EEXIST):
        return f"cannot read or write{what} ({why}); give a file that exists, or a folder that can be made, {WHERE}"
    return f"the system refused{what}: {error.strerror}"
