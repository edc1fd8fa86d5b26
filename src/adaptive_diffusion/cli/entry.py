"""What the command line adds to Hydra: one sentence instead of a traceback, exit codes, hints for typos."""

from __future__ import annotations

import functools
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .. import errors
from .._version import __version__
from .arguments import for_hydra
from .catalog import Catalog
from .mistakes import config_mistake
from .schemas import register, typed
from .wrong_values import wrong_value

T = TypeVar("T")

# conf/hydra/default.yaml sends this logger to the job's log file only
traceback_log = logging.getLogger("adaptive_diffusion.traceback")

_is_program = False  # whether `entry` runs this process


class _Stop(BaseException):
    """Carries an error past Hydra, which would add lines of its own to it."""


class Folders(Callback):
    """Refuses empty folders, below which all would be written to the root of the file system, and mistyped settings."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called before anything is written."""
        for name in ("outputs", "mlruns"):
            if not str(config.paths[name]).strip():
                raise _Stop from errors.UserError(f"paths.{name} is empty; give a folder, or leave it out")
        try:
            typed(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
        except errors.UserError as error:
            raise _Stop from error

    on_multirun_start = on_run_start


def entry(main: Callable[[], Any], script: str) -> None:
    """Run a `@hydra.main` function as a program.

    Args:
        main: The decorated function.
        script: The script's `__file__`; its folder is the project's root and holds `conf/`.
    """
    given, root, program = sys.argv[1:], Path(script).resolve().parent, Path(script).stem

    def told(error: BaseException) -> tuple[str | None, int]:
        if _of_configuration(error):
            return config_mistake(error, root / "conf", program, given), 2
        sentence, code = explain(error)
        return None if getattr(error, "told", False) else sentence, code

    errors.leave(lambda: _run(main, root, given), told)


def _run(main: Callable[[], Any], root: Path, given: list[str]) -> None:
    """Prepare this process for Hydra, and hand over to it."""
    global _is_program
    _is_program = True
    if "--version" in given:
        print(f"adaptive-diffusion-optimizer {__version__} (Hydra {hydra.__version__})")
        return
    os.environ.setdefault("ADAPTIVE_DIFFUSION_ROOT", str(root))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands exceptions on instead of printing them and exiting
    sys.argv[1:] = for_hydra(given, Catalog.of(root / "conf", given))
    if int(rank := os.environ.get("MLX_RANK", "0")) > 0:  # mlx.launch: the first process reports for all
        folder = "hydra.run.dir=${paths.outputs}/processes/" + rank
        sys.argv += [folder, "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]
    logging.raiseExceptions = False  # a log that cannot be written (full disk) must not drown the sentence about it
    register()
    try:
        main()
        return
    except _Stop as stop:
        error = stop.__cause__
    assert error is not None
    raise error  # out here, where it does not get the stop as its context


def job(task: Callable[[DictConfig], T]) -> Callable[[DictConfig], T]:
    """Let a job that fails leave its traceback in its own log; within a sweep, also tell at once.

    Hydra's launchers go on with the other jobs and afterwards report only the first that failed.
    """

    @functools.wraps(task)
    def run(cfg: DictConfig) -> T:
        try:
            return task(cfg)
        except Exception as error:
            if errors.was_interrupted(error):
                raise KeyboardInterrupt from error
            traceback_log.error("this job failed", exc_info=error)
            if in_sweep():
                print(f"job {HydraConfig.get().job.num} failed: {explain(error)[0]}", file=sys.stderr, flush=True)
                error.told = True  # type: ignore[attr-defined]
            elif _is_program:
                raise _Stop from error
            raise

    return run


def say(text: str) -> None:
    """Print a text; to nobody once whoever read our output has gone, as with `| head`. What is being done goes on."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        errors.stop_talking()


def in_sweep() -> bool:
    """Whether this process runs a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def explain(error: BaseException) -> tuple[str, int]:
    """One sentence about an error, and the exit code it deserves."""
    if isinstance(error, OmegaConfBaseException) and not errors.known_error(error):
        return wrong_value(error) or str(error).splitlines()[0], 2
    return errors.explain(error)


def _of_configuration(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf refuse what the command line or the configuration says; they raise anything."""
    if errors.known_error(error):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    raised_by = frames[-1].f_globals.get("__name__", "").partition(".")[0] if frames else ""
    theirs = isinstance(error, (ValueError, TypeError)) and raised_by == "hydra"
    return theirs or isinstance(error, (HydraException, OmegaConfBaseException))
