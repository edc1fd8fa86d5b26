"""The settings that belong to no constructor; see `runs.setting_types` for all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import MISSING, OmegaConf

from .. import program
from .catalog import InstalledPackages


@dataclass
class Paths:
    """Folders."""

    root: str = MISSING
    outputs: str = MISSING
    mlruns: str = MISSING
    data: str = MISSING
    run: str | None = MISSING  # null where nothing runs, as with --cfg job --resolve


@dataclass
class Domain:
    """The `domain` group."""

    name: str = MISSING
    description: str = ""
    pictures: str | None = None


@dataclass
class Benchmark:
    """The `benchmark` group."""

    seed_blocks: int = MISSING
    tolerance: float | None = MISSING
    baseline: str | None = MISSING


@dataclass
class Sample:
    """The root of sample.py."""

    model: Any = MISSING
    domain: Domain = MISSING
    scheduler: Any = MISSING
    grid: Any = MISSING
    sampler: Any = MISSING
    guidance: Any = MISSING
    metrics: Any = MISSING
    benchmark: Benchmark | None = None
    tracking: Any = MISSING
    paths: Paths = MISSING
    num_samples: int = MISSING
    num_steps: int | None = MISSING
    batch_size: int = MISSING
    seed: int = MISSING
    prompt: str | None = MISSING
    label: str | None = MISSING
    guidance_scale: float | None = MISSING
    image_size: int | None = MISSING
    init_image: str | None = MISSING
    strength: float = MISSING
    variation: float | None = MISSING
    name: str | None = MISSING
    tags: list[str] = MISSING
    skip_finished: bool = MISSING


@dataclass
class Train:
    """The root of train.py."""

    task: Any = MISSING
    agent: Any = None
    reward: Any = None
    domain: Domain | None = None
    tracking: Any = MISSING
    paths: Paths = MISSING
    output: str | None = MISSING
    name: str | None = MISSING
    tags: list[str] = MISSING


def register() -> None:
    """Make known to Hydra: the types of the two roots, the configuration of installed packages, and our resolvers."""
    Plugins.instance().register(InstalledPackages)
    for name, schema in (("sample", Sample), ("train", Train)):
        ConfigStore.instance().store(name, schema, group="schema", provider="adaptive_diffusion")

    OmegaConf.register_new_resolver("assets", program.assets, replace=True)
    OmegaConf.register_new_resolver("command", program.command, replace=True)  # for help texts
    OmegaConf.register_new_resolver("program", program.title, replace=True)
