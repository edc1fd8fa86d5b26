"""The kinds of failure a user meets, and the manners of every program: one sentence, and an exit code that fits.

The library raises `ValueError` for an argument, `Unusable` and `UnusableFile` for what the arguments stand for, and
`MissingPackage`. Programs say `UserError`, and tell all of them as the user's mistakes.

Exit code 0 is success, 2 the user's mistake, 1 the machine's (or a bug), 130 an interruption.
"""

from __future__ import annotations

import _thread
import difflib
import errno
import gc
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from . import interruption, program

INTERRUPTED = 130  # exit code
WHERE = "paths.outputs and paths.mlruns (sample, train) or --output (other commands) say where"


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


def did_you_mean(given: str, known: Iterable[str]) -> str | None:
    """The known name closest to a misspelt one, if any is close."""
    known = list(known)
    return next(iter(same_end(given, known)), None) or closest(given, known)


def same_end(given: str, known: Iterable[str]) -> list[str]:
    """The known names whose last part is that of a name."""
    return [name for name in known if name.split(".")[-1] == given.split(".")[-1]]


def closest(given: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like another, whatever the case."""
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), lower, n=1, cutoff=0.6)
    return lower[close[0]] if close else None


def run_program(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Leave the process with what `main` returns for its arguments, with the manners of `leave`."""
    leave(lambda: main(sys.argv[1:]))


def leave(
    run: Callable[[], int | None],
    explain: Callable[[BaseException], tuple[str | None, int]] = explain,
) -> NoReturn:
    """Run a program and leave the process: one sentence in place of a traceback, whatever happens.

    Whoever reads its output may go, as with `| head`: that ends it without a word. HYDRA_FULL_ERROR=1 shows tracebacks.

    Args:
        run: The program; what it returns is the exit code, None for 0.
        explain: The sentence about an error, None if it was printed already, and the exit code.
    """
    wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    for number in (signal.SIGINT, signal.SIGTERM):  # so that a program that is told to stop can say so
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    sys.unraisablehook = _interrupt_again
    try:
        code = run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        _exit("interrupted", INTERRUPTED)
    except BrokenPipeError:
        stop_talking()
        sys.exit(1)
    except Exception as error:
        if was_interrupted(error):
            _exit("interrupted", INTERRUPTED)
        if wanted:
            raise
        _exit(*explain(error))
    gc.freeze()  # the end of the process looks through all that is not
    sys.exit(code)


def _interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """Deliver an interruption again that hit a destructor or the end of a weak reference, where Python drops it."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()  # later: here it would be dropped as well
    else:
        sys.__unraisablehook__(lost)


def stop_talking() -> None:
    """Lead stdout to nowhere, or Python would complain about the broken pipe when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
        return f"the disk is full: cannot write{what}; free some space, or write elsewhere: {WHERE}"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"no permission to write{what} ({os.strerror(error.errno).lower()}); write where you may: {WHERE}"
    if error.errno in (errno.ENOTDIR, errno.ENOENT, errno.EEXIST):
        why = (error.strerror or "").lower()
        return f"cannot make or write{what} ({why}); write where folders can be made: {WHERE}"
    return f"the system refused{what}: {error.strerror}"


def _exit(sentence: str | None, code: int) -> NoReturn:
    interruption.interrupted = code == INTERRUPTED
    if sentence:
        print(sentence, file=sys.stderr, flush=True)
    sys.exit(code)
