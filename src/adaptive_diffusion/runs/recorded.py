"""The recorded run of a training: its name, its tags, and the configuration in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ..io.files import write_text
from ..tracking.provenance import git_state, parameters
from ..tracking.tracker import Run, Tracker


@contextmanager
def recorded(
    cfg: DictConfig,
    tracker: Tracker,
    name: str,
    *,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    resume: Mapping[str, str] | None = None,
) -> Iterator[Run]:
    """Open the run of a training. After the block, its folder gets the configuration, and is recorded.

    Args:
        cfg: `conf/train.yaml`, composed and checked.
        tracker: Where the run is recorded.
        name: Name of the run, where `name` is not given.
        params: Settings to record; None: the configuration.
        tags: Further tags.
        resume: Tags of an unfinished run to go on with; None: a new run.

    Raises:
        MachineError: if the disk or the database refuses.
    """
    all_tags = {**(tags or {}), **run_tags(cfg)}
    with tracker.open(cfg.name or name, params=params or parameters(cfg), tags=all_tags, resume=resume) as run:
        yield run
        write_text(Path(cfg.paths.run) / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        run.folder(cfg.paths.run)


def run_tags(cfg: DictConfig) -> dict[str, str]:
    """The tags of every run: the user's own, and the state of the repository."""
    git = git_state()
    own = {"tags": ",".join(cfg.tags)} if cfg.tags else {}
    return {**own, **(git.tags if git else {})}
