"""Which runs are the same: what decides the numbers of a sampling run, and the result of a training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .._version import __version__
from ..benchmark.measure import steps_digest
from ..diffusion.facts import ModelFacts
from ..diffusion.guidance import Guidance, identity_of
from ..grids.calibrated import kept_file
from ..grids.calibrated_schedule import CalibratedSchedule
from ..io.digest import digest_of
from ..tracking.provenance import code_digest, fingerprint
from .setup import Setup

# settings whose files and folders are read by every run; the others are known better
FILES = ("init_image", "metrics", "sampler")


def identity_of_run(setup: Setup) -> str:
    """sha256 (hex) of all that decides the images and the numbers of a run: settings, model, steps, files and code."""
    cfg, scheduler = setup.cfg, setup.scheduler
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    calibration = getattr(scheduler, "calibration", None)
    settings = {k: v for k, v in scheduler.config.items() if k != "calibration"}

    constant = not isinstance(setup.denoiser.guidance_scale, Guidance)

    return fingerprint(
        cfg,
        without=("guidance",) if constant else (),  # one number says it all, whichever option made it
        model=ModelFacts.of(setup.model).content_hash,
        guidance=identity_of(setup.model, setup.denoiser.guidance_scale),
        conditions=setup.conditions.content,
        scheduler=repr(sorted(settings.items())),
        timesteps=[float(t) for t in scheduler.timesteps],
        calibration=steps_digest(calibration if isinstance(calibration, CalibratedSchedule) else None, len(scheduler)),
        files=_digests({name: plain[name] for name in FILES}, folders=True),
        version=__version__,
        code=code_digest(cfg),
    )


def identity_of_training(cfg: DictConfig, model: str) -> str:
    """The same of a training of an agent.

    Args:
        cfg: `conf/train.yaml`, composed and checked.
        model: Identity of the model.
    """
    plain: Any = OmegaConf.to_container(cfg.task, resolve=True)
    for node in (plain, plain.get("grid") or {}):
        if node.get("kept"):
            node["kept"] = str(kept_file(node["kept"], model))
    images = _digests({"pictures": OmegaConf.select(cfg, "domain.pictures")}, folders=True)
    return fingerprint(cfg, model=model, files=_digests(plain) | images, version=__version__, code=code_digest(cfg))


def _digests(node: dict[str, Any], folders: bool = False) -> dict[str, str]:
    """The settings that name files, or folders too -> hashes of what these hold."""
    # Not `Path.is_file`, which raises an error for a text that is too long for a name.
    return {
        name: digest_of(Path(text))
        for name, text in _texts(node)
        if os.path.isfile(text) or (folders and os.path.isdir(text))
    }


def _texts(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every text of the settings, with its name."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _texts(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            yield f"{prefix}{key}", value
