"""How every program ends: what failed is one sentence, and the exit code fits; an interruption is no failure."""

from __future__ import annotations

import _thread
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from . import interruption
from .errors import explain, was_interrupted

INTERRUPTED = 130  # exit code


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


def _exit(sentence: str | None, code: int) -> NoReturn:
    interruption.interrupted = code == INTERRUPTED
    if sentence:
        print(sentence, file=sys.stderr, flush=True)
    sys.exit(code)
