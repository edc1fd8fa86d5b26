"""What every training begins with, and which task is run."""

from __future__ import annotations

import importlib
import logging
import os
import re
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ..errors import MachineError, UserError
from ..program import title
from ..tracking.provenance import fingerprint
from .assemble import check_keys
from .job import in_sweep, job

log = logging.getLogger(__name__)


STATE = "state.safetensors"  # of a training, in the folder of its result where neither is given


# what the task builds -> module and function that trains it
TRAINING_STORIES = {
    "TrainingConfig": ("train_model", "train_model"),
    "EncoderTraining": ("train_encoder", "train_encoder"),
    "ScheduleTask": ("calibrate", "calibrate_schedules"),
    "AgentTask": ("tune", "tune"),
    "PolicyTask": ("train_policy", "train_policy"),
}


OF_AGENTS = ("AgentTask", "PolicyTask")


@job
def train(cfg: DictConfig) -> float:
    """Train what `task` says: a story of its own for each kind of task."""
    kind = str(cfg.task.get("_target_", "")).rpartition(".")[2]
    if kind not in TRAINING_STORIES:
        raise UserError(
            f"task builds {kind or 'nothing'}, which {title('train')} does not know; see conf/task for what it does"
        )
    for group in ("agent", "reward", "domain"):
        if kind not in OF_AGENTS and cfg[group] is not None:
            raise UserError(
                f"{group} belongs to {title('train')} agent=..., and this is another task; leave one of them out"
            )
    module, story = TRAINING_STORIES[kind]
    return getattr(importlib.import_module(f".{module}", __package__), story)(cfg)


def training_configuration(cfg: DictConfig, file: str, *, merged: bool = False) -> DictConfig:
    """What every training begins with: a checked copy, with the files of result and state, without data that is null.

    In a sweep the default files lie in a folder that is named by all settings of the job: every job has its own, and
    the same sweep finds them again.

    Args:
        cfg: `conf/train.yaml`, composed.
        file: Of the result, below paths.outputs, where none is given; settings in it are written as ${...}.
        merged: Whether several jobs may add to one file of results.

    Raises:
        UserError: for a missing or unknown key, an `output` with another suffix than `file` has, or one that all jobs
            of a sweep would write over.
        MachineError: for an `output` in a folder that cannot be made or written to.
    """
    cfg = cfg.copy()
    check_keys(cfg)
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
    if not _can_be_made(Path(cfg.output)):
        raise MachineError(
            f"output={cfg.output} cannot be written; give another file, in a folder that you may write to"
        )
    if "data" in cfg.task:
        cfg.task.data = {name: path for name, path in cfg.task.data.items() if path is not None}
    return cfg


def _check_own_output(cfg: DictConfig) -> None:
    """Refuse an output that does not name the job of the sweep."""
    written = str(OmegaConf.to_container(cfg, resolve=False)["output"])  # type: ignore[call-overload, index]
    if not re.search(r"\$\{(?!paths\.(root|outputs|data)\})", written):
        own = f"output='folder/${{hydra:job.num}}{Path(cfg.output).suffix}'"
        raise UserError(
            f"the jobs of this sweep would all write to output={cfg.output}; leave output out, and each has a file of "
            f"its own, or name the job in it: {own}"
        )


def _can_be_made(path: Path) -> bool:
    """Whether a file can be written, or the folders above it made, as far as permissions tell."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    return folder.is_dir() and os.access(folder, os.W_OK)
