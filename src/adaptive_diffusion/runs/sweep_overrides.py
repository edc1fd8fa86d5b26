"""The settings of a sweep, as its configuration and the command line give them."""

from __future__ import annotations

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf


def sweep_overrides(config: DictConfig, loader: ConfigLoader | None = None) -> list[Override]:
    """The settings of a sweep; those of the command line come last and take precedence, as Hydra's sweeper has it.

    Args:
        config: Of the sweep; its sweeper need not have `params`.
        loader: Spells out `glob(*)`; None: nothing does.

    Raises:
        HydraException: for a setting that cannot be read.
    """
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    given = [f"{key}={values}" for key, values in params.items()]
    return list(OverridesParser.create(config_loader=loader).parse_overrides([*given, *config.hydra.overrides.task]))


def takes_every_combination(config: DictConfig) -> bool:
    """Whether the sweeper is Hydra's own; others decide on their jobs one after another."""
    target = OmegaConf.select(config, "hydra.sweeper._target_", default="")
    return str(target).rpartition(".")[2] == BasicSweeper.__name__
