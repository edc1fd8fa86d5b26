"""What records of runs share: the run of a training, the tags, and the configuration in the folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..io.addresses import without_login
from ..io.files import write_text
from ..tracking.provenance import git_state, parameters
from ..tracking.record import Input
from ..tracking.tracker import Run, Tracker
from .settings_text import literals


@contextmanager
def recorded(
    cfg: DictConfig,
    tracker: Tracker,
    name: str,
    *,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    resume: Mapping[str, str] | None = None,
    inputs: Sequence[Input] = (),
) -> Iterator[Run]:
    """Open the run of a training. After the block, its folder gets the configuration, and is recorded.

    Args:
        cfg: `conf/train.yaml`, composed and checked.
        tracker: Where the run is recorded.
        name: Name of the run, where `name` is not given.
        params: Settings to record; None: the configuration.
        tags: Further tags.
        resume: Tags of an unfinished run to go on with; None: a new run.
        inputs: What it is made from.

    Raises:
        MachineError: if the disk or the database refuses.
    """
    all_tags = {**(tags or {}), **run_tags(cfg)}
    name, params, folder = cfg.name or name, params or parameters(cfg), cfg.paths.run
    with tracker.open(name, params=params, tags=all_tags, resume=resume, folder=folder) as run:
        if inputs:
            run.inputs(*inputs)
        yield run
        write_config(Path(folder), cfg)
        run.keep(folder)


def write_config(folder: Path, cfg: DictConfig) -> None:
    """Write `config.yaml`: every value filled in, the address of a server without name and password.

    What depends on the run stays a reference: a run with this file (`--config-dir <folder> --config-name config`) does
    not overwrite this one, and is not taken for one that has finished.
    """
    written: Any = literals(OmegaConf.to_container(cfg, resolve=True))
    written["paths"]["run"] = "${hydra:runtime.output_dir}"
    if "skip_finished" in written:
        written["skip_finished"] = "${in_sweep:}"
    if uri := written["tracking"].get("uri"):
        written["tracking"]["uri"] = without_login(uri)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(written))


def run_tags(cfg: DictConfig) -> dict[str, str]:
    """The tags of every run: the user's own, and the state of the repository."""
    git = git_state()
    own = {"tags": ",".join(cfg.tags)} if cfg.tags else {}
    return {**own, **(git.tags if git else {})}
