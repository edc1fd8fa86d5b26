"""Whether the jobs of a sweep have converged solutions to be compared with: where a scheduler adds noise, none has."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from .build import build
from .sweep_overrides import sweep_overrides


def all_stochastic(config: DictConfig) -> bool:
    """Whether every scheduler of a sweep adds noise; False where that cannot be told.

    Args:
        config: Of the sweep; its values must be spelt out.
    """
    try:
        return all(build(job, "scheduler").stochastic for job in _one_of_each_scheduler(config))
    except Exception:  # whatever it is, the jobs say it; an estimate of the cost does not
        return False


def _one_of_each_scheduler(config: DictConfig) -> Iterator[DictConfig]:
    """The configuration of a job for each combination of values of the settings of the scheduler."""
    settings: dict[str, list[str]] = {}
    for override in sweep_overrides(config):
        key, line = override.get_key_element(), str(override.input_line)
        values = [f"{key}={v}" for v in override.sweep_string_iterator()] if override.is_sweep_override() else [line]
        settings[key] = values if key.partition(".")[0] == "scheduler" else values[:1]

    loader = GlobalHydra.instance().config_loader()
    for overrides in itertools.product(*settings.values()):
        yield loader.load_configuration(config.hydra.job.config_name, list(overrides), RunMode.RUN)
