"""`sample` and `train`: Hydra's programs with one sentence instead of a traceback, exit codes, hints for typos."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from .. import errors, leaving, program
from .._version import __version__
from ..io.addresses import without_login
from ..runs import job
from ..runs.setting_types import typed
from ..runs.settings_text import given_settings
from .arguments import for_hydra
from .catalog import Catalog
from .schemas import register

log = logging.getLogger(__name__)

ROOT = "ADAPTIVE_DIFFUSION_ROOT"  # in the environment: the folder that conf/paths builds on
VERSION = f"adaptive-diffusion-optimizer {__version__} (Hydra {hydra.__version__})"


class ChecksBeforeWriting(Callback):
    """Refuses empty folders, below which all would be written to the root of the file system, and mistyped settings.

    It warns of a password that Hydra is about to write.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called before anything is written, in the process that was started alone."""
        for name in ("outputs", "mlruns"):
            if not str(config.paths[name]).strip():
                raise job.Stop from errors.UserError(f"paths.{name} is empty; give a folder, or leave it out")
        try:
            typed(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
        except errors.UserError as error:
            raise job.Stop from error

        given = given_settings(config)
        if any(without_login(each) != each for each in given if each.lstrip("+").startswith("tracking.uri=")):
            log.warning(
                "Hydra keeps the password of tracking.uri in .hydra/ of the run, and its log may quote it; give name "
                "and password as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment instead"
            )

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """The same of a sweep. What settings refer to is that of its first job, until Hydra begins with the jobs."""
        first = config.copy()
        with open_dict(first):
            first.hydra.job.num = 0
        HydraConfig.instance().set_config(first)
        self.on_run_start(config)


def entry(script: str) -> NoReturn:
    """Run sample.py or train.py, which writes into its own folder.

    Args:
        script: Its `__file__`.
    """
    program.called("python")
    run(Path(script).stem, sys.argv[1:], Path(script).resolve().parent)


def run(name: str, given: list[str], root: Path) -> NoReturn:
    """Run `sample` or `train`, and leave the process.

    Args:
        name: Which of the two; also the name of its root configuration.
        given: The command line after the program.
        root: Where outputs and mlruns go unless the command line says so.
    """

    def explained(error: BaseException) -> tuple[str | None, int]:
        sentence, code = sentence_and_code(error, name, given)
        return None if getattr(error, "reported", False) else sentence, code

    leaving.leave(lambda: _run(name, given, root), explained)


def sentence_and_code(error: BaseException, name: str, given: Sequence[str]) -> tuple[str, int]:
    """One sentence about what went wrong in a job or before it, and the exit code it deserves.

    Args:
        error: What was raised.
        name: `sample` or `train`.
        given: The command line.
    """
    if _of_configuration(error):
        from .mistakes import config_mistake  # late, as most runs make none

        return config_mistake(error, program.conf(), name, given), 2
    return job.explain(error)


def _run(name: str, given: list[str], root: Path) -> None:
    """Prepare this process for Hydra, and hand over to it."""
    job.is_program = True
    program.started(name, given)
    if "--version" in given:
        print(VERSION)
        return

    # Before Hydra starts: what the configuration refers to, and the command line as Hydra wants it.
    os.environ.setdefault(ROOT, str(root))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands exceptions on instead of printing them and exiting
    sys.argv[1:] = for_hydra(given, Catalog.of(program.conf(), given))

    # mlx.launch: the first process reports for all.
    if int(rank := os.environ.get("MLX_RANK", "0")) > 0:
        folder = "hydra.run.dir=${paths.outputs}/processes/" + rank
        sys.argv += [folder, "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]

    # A log that cannot be written (full disk) must not drown the sentence about it.
    logging.raiseExceptions = False

    register()
    try:
        _with_hydra(name)()
        return
    except job.Stop as stop:
        error = stop.__cause__

    # Out here, where the error does not get the stop as its context.
    assert error is not None
    raise error


def _with_hydra(name: str) -> Callable[[], Any]:
    """What Hydra runs for a program: the function of the same name in the module of the same name."""

    def task(cfg: DictConfig) -> Any:
        runs = importlib.import_module(f"adaptive_diffusion.runs.{name}")  # late: --help and tab completion are quick
        return getattr(runs, name)(cfg)

    decorated: Any = hydra.main(version_base="1.3", config_path=str(program.conf()), config_name=name)(task)
    return decorated


def _of_configuration(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf refuse what the command line or the configuration says; they raise anything."""
    if errors.known_error(error):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    raised_by = frames[-1].f_globals.get("__name__", "").partition(".")[0] if frames else ""
    theirs = isinstance(error, (ValueError, TypeError)) and raised_by == "hydra"
    theirs |= isinstance(error, AssertionError) and raised_by == "omegaconf"  # for a setting below null
    return theirs or isinstance(error, (HydraException, OmegaConfBaseException))
