"""What every task of train.py begins with."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar, Protocol

from omegaconf import DictConfig, OmegaConf

from ..diffusion.facts import ModelFacts
from ..errors import MachineError, UserError
from ..program import title
from ..tracking.provenance import fingerprint
from .build import build
from .checks import checked
from .job import in_sweep, job
from .setting_types import target_of
from .settings_text import literal

log = logging.getLogger(__name__)


STATE = "state.safetensors"  # of a training, in the folder of its result where neither is given


class Task(Protocol):
    """What `task` builds: anything with `run`. What else it says is optional.

    Attributes:
        result: File that it writes, below paths.outputs, where `output` is not given; settings in it are written as
            ${...}. "" if there is none.
        merged: Whether several jobs of a sweep may add to one file of results.
        takes: Which of the groups agent, reward and domain it uses; the others are refused.
        needs: Settings that choose the groups it cannot do without, e.g. "agent=ppo domain=landscapes".
    """

    result: ClassVar[str] = ""
    merged: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[str] = ""

    def run(self, cfg: DictConfig, /) -> float:
        """Do it.

        Args:
            cfg: `conf/train.yaml`, composed and checked; `output` is the file to write.

        Returns:
            What a sweeper may minimise.
        """
        ...


@job
def train(cfg: DictConfig) -> float:
    """Build what `task` says, and run it.

    Raises:
        UserError: for a value that cannot be used; nothing was written then.
        MachineError: if the disk or the database refuses.
    """
    cfg, task = task_of(cfg)
    return task.run(cfg)


def task_of(cfg: DictConfig) -> tuple[DictConfig, Task]:
    """The configuration of a training, checked and settled, and what its `task` builds.

    Raises:
        UserError: for a value that cannot be used.
        MachineError: see `training_configuration`.
    """
    target = target_of(cfg.task)
    _check_groups(cfg, getattr(target, "takes", ()), getattr(target, "needs", ""))

    cfg = training_configuration(cfg, getattr(target, "result", ""), merged=getattr(target, "merged", False))
    task = _built(cfg)
    if not callable(getattr(task, "run", None)):
        raise UserError(f"task builds {type(task).__name__}, which cannot be run; see conf/task")
    return cfg, task


def _built(cfg: DictConfig) -> Task:
    """What `task` builds; where it has a grid that is calibrated, that of its model at its guidance."""
    task: Task
    grid = cfg.task.get("grid")
    if not OmegaConf.is_dict(grid) or grid.get("model", "") is not None:
        task = build(cfg, "task")
        return task

    model = build(cfg.task, "model")
    settings = OmegaConf.create({"task": OmegaConf.to_container(cfg.task, resolve=True)})
    settings.task.grid.model = literal(model.identity)
    if grid.get("guidance_scale", "") is None:
        settings.task.grid.guidance_scale = ModelFacts.of(model).guidance(None)
    del settings.task.model
    task = build(settings, "task", model=model)
    return task


def _check_groups(cfg: DictConfig, takes: Collection[str], needs: str) -> None:
    """Refuse a group that the task does not use, or the lack of one that it needs; see `Task`."""
    for group in ("agent", "reward", "domain"):
        if group not in takes and cfg[group] is not None:
            raise UserError(
                f"{group} belongs to {title('train')} agent=..., and this is another task; leave one of them out"
            )
    if lacking := [group for group in re.findall(r"(\w+)=", needs) if cfg[group] is None]:
        raise UserError(f"this task needs {' and '.join(lacking)}, e.g. {needs}")


def training_configuration(cfg: DictConfig, file: str, *, merged: bool = False) -> DictConfig:
    """What every training begins with: a checked copy, with the files of result and state, without data that is null.

    In a sweep the default files lie in a folder that is named by all settings of the job: every job has its own, and
    the same sweep finds them again.

    Args:
        cfg: `conf/train.yaml`, composed.
        file: See `Task.result`.
        merged: See `Task`.

    Raises:
        UserError: for a missing or unknown key, an `output` with another suffix than `file` has, or one that all jobs
            of a sweep or the training's own state would write over.
        MachineError: for an `output` in a folder that cannot be made or written to.
    """
    cfg = checked(cfg)
    if "data" in cfg.task:
        cfg.task.data = {name: path for name, path in cfg.task.data.items() if path is not None}
    if not file:
        return cfg

    # Each job of a sweep has files of its own.
    if in_sweep():
        if cfg.output is not None and not merged:
            _check_own_output(cfg)
        parent, _, name = file.rpartition("/")
        own = f"{parent}/{fingerprint(cfg)[:12]}"
        if cfg.task.get("state") == f"{cfg.paths.outputs}/{parent}/{STATE}":  # where none is given
            cfg.task.state = f"{cfg.paths.outputs}/{own}/{STATE}"
        file = f"{own}/{name}"

    cfg.output = cfg.output or f"${{paths.outputs}}/{file}"
    cfg.output = str(cfg.output)  # settled, whatever becomes of the settings in it
    if not cfg.output.endswith(suffix := Path(file).suffix):
        raise UserError(f"output must be a {suffix} file, got {cfg.output!r}")
    state = cfg.task.get("state")
    if state is not None and os.path.abspath(state) == os.path.abspath(cfg.output):
        raise UserError(f"output and task.state are one file, {cfg.output}; give two, or leave one of them out")
    if not _can_be_made(Path(cfg.output)):
        raise MachineError(
            f"output={cfg.output} cannot be written; give another file, in a folder that you may write to"
        )
    return cfg


def _check_own_output(cfg: DictConfig) -> None:
    """Refuse an output that does not name the job of the sweep."""
    written = str(OmegaConf.to_container(cfg, resolve=False)["output"])  # type: ignore[call-overload, index]
    if not re.search(r"\$\{(?!assets:|oc\.env:|paths\.(?!run\}))", written):
        own = f"output='folder/${{hydra:job.num}}{Path(cfg.output).suffix}'"
        raise UserError(
            f"the jobs of this sweep would all write to output={cfg.output}; leave output out, and each has a file of "
            f"its own, or name the job in it: {own}"
        )


def _can_be_made(path: Path) -> bool:
    """Whether a file can be written, or the folders above it made, as far as permissions say."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    return folder.is_dir() and os.access(folder, os.W_OK)
