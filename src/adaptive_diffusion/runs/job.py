"""How a run fails: its traceback goes to its own log, one sentence to the terminal, and a sweep goes on."""

from __future__ import annotations

import contextlib
import functools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .. import errors
from .wrong_values import wrong_value

T = TypeVar("T")

is_program = False  # whether a program runs in this process, which catches `Stop`


class Stop(BaseException):
    """Carries an error past Hydra, which would add lines of its own to it."""


def job(task: Callable[[DictConfig], T]) -> Callable[[DictConfig], T]:
    """Let a job that fails leave its traceback in its own log; within a sweep, also print its sentence at once.

    Hydra's launchers go on with the other jobs and afterwards report only the first that failed.
    """

    @functools.wraps(task)
    def run(cfg: DictConfig) -> T:
        try:
            return task(cfg)
        except Exception as error:
            if errors.was_interrupted(error):
                raise KeyboardInterrupt from error

            errors.traceback_log.error("this job failed", exc_info=error)
            sentence, code = explain(error)
            if code == 2 and (in_sweep() or is_program):
                _leave_no_folder(Path(cfg.paths.outputs))
            if in_sweep():
                print(f"job {HydraConfig.get().job.num} failed: {sentence}", file=sys.stderr, flush=True)
                error.reported = True  # type: ignore[attr-defined]
            elif is_program:
                raise Stop from error
            raise

    return run


def _leave_no_folder(outputs: Path) -> None:
    """Remove the folder of a run that was refused, unless it holds more than Hydra's files; and those it lies in."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    with contextlib.suppress(OSError):
        if {entry.name for entry in folder.iterdir()} <= {hydra.output_subdir, f"{hydra.job.name}.log"}:
            shutil.rmtree(folder)
            for parent in folder.parents:
                if outputs.absolute() in parent.parents:
                    parent.rmdir()


def in_sweep() -> bool:
    """Whether this process runs a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


# Here, since the workers of a launcher import this before they look at their configuration, and not the program.
OmegaConf.register_new_resolver("in_sweep", in_sweep, replace=True)


def explain(error: BaseException) -> tuple[str, int]:
    """One sentence about an error, and the exit code it deserves."""
    if isinstance(error, OmegaConfBaseException) and not errors.known_error(error):
        return wrong_value(error) or str(error).splitlines()[0], 2
    return errors.explain(error)
