"""What the command line adds to Hydra: one sentence instead of a traceback, exit codes, hints for typos.

Exit code 0 is success, 2 the user's mistake, 1 the machine's (or a bug), 130 an interruption.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from . import interruption
from .config import register
from .errors import MachineError, UserError
from .hints import NO_CHOICE, config_mistake
from .wrong_values import wrong_value

T = TypeVar("T")

# conf/hydra/default.yaml sends this logger to the job's log file only
traceback_log = logging.getLogger("adaptive_diffusion.traceback")

SWEEP = ("-m", "--multirun")
TEXTS = ("prompt", "model.negative_prompt", "name")  # settings that are taken as they are written, commas included

_is_program = False  # whether `entry` runs this process


class _Stop(BaseException):
    """Carries an error past Hydra, which would add lines of its own to it."""


def entry(main: Callable[[], Any], script: str) -> None:
    """Run a `@hydra.main` function as a program.

    Args:
        main: The decorated function.
        script: The script's `__file__`; its folder is the project's root and holds `conf/`.
    """
    global _is_program
    _is_program = True
    root = Path(script).resolve().parent
    os.environ.setdefault("ADAPTIVE_DIFFUSION_ROOT", str(root))
    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands exceptions on instead of printing them and exiting
    sys.argv[1:] = with_task(for_hydra(sys.argv[1:]))
    if int(rank := os.environ.get("MLX_RANK", "0")) > 0:  # mlx.launch: the first process reports for all
        folder = "hydra.run.dir=${paths.outputs}/processes/" + rank
        sys.argv += [folder, "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]
    logging.raiseExceptions = False  # a log that cannot be written (full disk) must not drown the sentence about it
    register()
    try:
        for number in (signal.SIGINT, signal.SIGTERM):  # from here on a run that is told to stop can say so
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        _exit("interrupted", 130)
    except BrokenPipeError:
        _stop_talking()
        sys.exit(1)
    except (Exception, _Stop) as stop:
        error = stop.__cause__ if isinstance(stop, _Stop) else stop
        if _was_interrupted(error):
            _exit("interrupted", 130)
        if traceback_wanted or error is None:
            raise
        if _of_configuration(error):
            _exit(config_mistake(error, root / "conf", Path(script).stem, sys.argv[1:]), 2)
        sentence, code = explain(error)
        _exit(None if getattr(error, "told", False) else sentence, code)


def job(task: Callable[[DictConfig], T]) -> Callable[[DictConfig], T]:
    """Let a job that fails leave its traceback in its own log; within a sweep, also tell at once.

    Hydra's launchers go on with the other jobs and afterwards report only the first that failed.
    """

    @functools.wraps(task)
    def run(cfg: DictConfig) -> T:
        try:
            return task(cfg)
        except Exception as error:
            if _was_interrupted(error):
                raise KeyboardInterrupt from error
            traceback_log.error("this job failed", exc_info=error)
            if in_sweep():
                print(f"job {HydraConfig.get().job.num} failed: {explain(error)[0]}", file=sys.stderr, flush=True)
                error.told = True  # type: ignore[attr-defined]
            elif _is_program:
                raise _Stop from error
            raise

    return run


def for_hydra(arguments: list[str]) -> list[str]:
    """The command line as Hydra wants it: -m first, and texts quoted, unless they are or a sweep may be meant."""
    ordered = sorted(arguments, key=lambda a: a not in SWEEP)  # argparse wants them first
    return ordered if ordered and ordered[0] in SWEEP else [_quoted(argument) for argument in ordered]


def with_task(arguments: list[str]) -> list[str]:
    """The command line of a sweep over agents, with the task and the reward that each of them brings with it.

    Before a sweep begins, Hydra checks the other settings without what is swept, and so without these.
    """
    swept = any(a.startswith("agent=") and "," in a for a in arguments)
    if not swept or arguments[0] not in SWEEP:
        return arguments
    brought = {"task": "task=agent", "reward": "reward=hybrid"}
    return arguments + [b for key, b in brought.items() if not any(a.startswith(f"{key}=") for a in arguments)]


def _quoted(argument: str) -> str:
    key, given, text = argument.partition("=")
    if key not in TEXTS or text in ("", "null") or (len(text) > 1 and text[0] == text[-1] and text[0] in "'\""):
        return argument
    text = text.replace("${", "\\${")  # no reference to a setting
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"{key}{given}'{escaped}'"  # backslashes count only before a quote


def say(text: str) -> None:
    """Print a text; to nobody once whoever read our output has gone, as with `| head`. What is being done goes on."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _stop_talking()


def in_sweep() -> bool:
    """Whether this process runs a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def explain(error: BaseException) -> tuple[str, int]:
    """One sentence about an error, and the exit code it deserves."""
    if known := _known(error):
        return str(known), 2 if isinstance(known, UserError) else 1
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno is not None:
            return _about_files(link), 1
        if isinstance(link, MemoryError) or (isinstance(link, RuntimeError) and "allocate" in str(link)):
            return f"not enough memory ({str(link).strip() or 'MemoryError'}); use a smaller batch_size", 1
    if isinstance(error, OmegaConfBaseException):
        return wrong_value(error) or str(error).splitlines()[0], 2
    return f"unexpected {type(error).__name__}: {error} (HYDRA_FULL_ERROR=1 shows where)", 1


def _about_files(error: OSError) -> str:
    what = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: cannot write{what}; free some space, or set paths.outputs and paths.mlruns elsewhere"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return (
            f"no permission to write{what} ({os.strerror(error.errno).lower()}); "
            "set paths.outputs and paths.mlruns to folders you may write to"
        )
    if error.errno in (errno.ENOTDIR, errno.ENOENT, errno.EEXIST):
        why = (error.strerror or "").lower()
        return f"cannot make or write{what} ({why}); set paths.outputs and paths.mlruns to folders that can be made"
    return f"the system refused{what}: {error.strerror}"


def _of_configuration(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf refuse what the configuration says."""
    if _known(error):
        return False
    return isinstance(error, (HydraException, OmegaConfBaseException)) or str(error).startswith(NO_CHOICE)


def _known(error: BaseException) -> UserError | MachineError | None:
    return next((e for e in _chain(error) if isinstance(e, (UserError, MachineError))), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether an error came of an interruption, as where it hits code that then cleans up what is half made."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _stop_talking() -> None:
    """Lead stdout to nowhere, or Python would complain about the broken pipe when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit(sentence: str | None, code: int) -> None:
    interruption.interrupted = code == 130
    if sentence:
        print(sentence, file=sys.stderr, flush=True)
    sys.exit(code)
