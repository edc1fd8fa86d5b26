"""`scheduler=tuned`, `guidance=tuned`, `guidance=default`: what a model's tuned configuration describes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..diffusion.guidance import Constant, Guidance
from ..errors import Unusable
from ..grids.calibrated_schedule import CalibratedSchedule
from ..io.files import describe_path
from ..schedulers.configuration import DPM_SOLVER
from ..schedulers.core import SchedulerCore
from ..schedulers.first_evaluation import NETWORK
from .configuration import DomainConfig
from .memory import SHIPPED, read_records
from .records import DEFAULT_STAYS, DomainRecord, DomainRecords

log = logging.getLogger(__name__)


def find_tuned(
    path: str | Path | None, trained: str | Path, model: str, domain: str, guidance_scale: float
) -> tuple[DomainRecord, Path]:
    """The record of a model in a domain, and the file that holds it.

    Args:
        path: File that train.py agent=... wrote; None: `trained` if something better than the default was found there,
            else the shipped file.
        trained: The file that train.py agent=... writes by default.
        model: Identity of the model.
        domain: Name of the domain.
        guidance_scale: Constant weight of classifier-free guidance that was tuned around.

    Raises:
        Unusable: if there is no such record, or a file cannot be used.
    """
    if known := tuned_records(path, trained, model, domain, guidance_scale):
        return known[0]

    raise Unusable(
        f"nothing was tuned for domain={domain} of this model around guidance_scale={guidance_scale:g}"
        f"{'' if path is None else f' in {path}'}, {_tuned_for(_files(path, trained).values(), model)}; tune it",
        "agent",
        domain=domain,
        guidance_scale=guidance_scale,
    )


def tuned_records(
    path: str | Path | None, trained: str | Path, model: str, domain: str, guidance_scale: float
) -> list[tuple[DomainRecord, Path]]:
    """The records of a model in a domain, and the files that hold them.

    Those that are better than the default come first, one's own before what ships. Arguments as for `find_tuned`.

    Raises:
        UnusableFile: if a file cannot be used.
    """
    found = ((files.find(model, guidance_scale, domain), file) for file, files in _files(path, trained).items())
    known = [(record, file) for record, file in found if record]
    return sorted(known, key=lambda each: each[0].source == DEFAULT_STAYS)


def tuned_scheduler(
    path: str | None,
    trained: str,
    model: str | None,
    domain: str,
    guidance_scale: float,
    num_inference_steps: int | None = None,
    calibration: CalibratedSchedule | None = None,
    first_evaluation: str = NETWORK,
    **trained_as: Any,
) -> SchedulerCore:
    """The scheduler of a tuned configuration, its timesteps set; its `source` names the file.

    Args:
        path, trained, model, domain, guidance_scale: See `find_tuned`.
        num_inference_steps: Steps in [1, T]; None: as tuned.
        calibration: The calibrated steps of the model in the domain, or None; not used if it was tuned without.
        first_evaluation: See `AdaptiveScheduler`.
        **trained_as: How the model was trained, and whether to clip: see `SchedulerCore`.

    Raises:
        Unusable: see `find_tuned`; or if it was tuned with calibrated steps, and there are none; or with a
            solver that takes no stored first prediction.
        ValueError: for a value out of range.
    """
    record, file = find_tuned(path, trained, model or "", domain, guidance_scale)
    configuration = record.to_config()
    if configuration.calibrated and calibration is None:
        raise Unusable(
            f"domain={domain} was tuned with calibrated steps, and there are none; give their file as "
            "calibration.path, or calibrate the model",
            "schedule",
        )

    steps = configuration.num_steps if num_inference_steps is None else num_inference_steps
    if first_evaluation != NETWORK:
        if configuration.solver != DPM_SOLVER:
            raise Unusable(
                f"domain={domain} was tuned with the solver {configuration.solver}, which evaluates the network at "
                f"every timestep; leave first_evaluation={first_evaluation} out"
            )
        trained_as["first_evaluation"] = first_evaluation

    drawn = with_calibrated(replace(configuration, num_steps=steps), calibration, domain)
    scheduler = drawn.scheduler(trained_as)
    scheduler.source = describe_path(file)
    return scheduler


def with_calibrated(config: DomainConfig, calibration: CalibratedSchedule | None, domain: str) -> DomainConfig:
    """A configuration with calibrated steps, unless it was tuned without: then a warning says so.

    Args:
        config: The configuration.
        calibration: The calibrated steps of the model in the domain, or None.
        domain: Name of the domain.
    """
    if config.calibrated is not False or calibration is None:
        return replace(config, calibration=calibration)
    if config.solver == DPM_SOLVER:
        log.warning(
            "domain=%s was tuned before steps were calibrated for it, and is drawn without them; tune it again", domain
        )
    return replace(config, calibration=None)


def tuned_guidance(path: str | None, trained: str, model: str | None, domain: str | None, weight: float) -> Guidance:
    """The guidance of a tuned configuration; constant guidance where nothing was tuned, and a line of the log says so.

    Args:
        path, trained, model, domain: See `find_tuned`.
        weight: Constant weight that was tuned around, and that is taken where nothing was.

    Raises:
        UnusableFile: if a file cannot be used.
        ValueError: for a value out of range.
    """
    known = tuned_records(path, trained, model or "", domain or "", weight)
    if not known:
        of = f"domain={domain} of this model around guidance_scale={weight:g}"
        log.info("nothing was tuned for %s: guidance is %g at every step", of, weight)
        return Constant(weight)
    return known[0][0].to_config().guidance or Constant(weight)


def default_guidance(
    path: str | None, trained: str, model: str | None, domain: str | None, weight: float, constant: bool = False
) -> Guidance:
    """Tuned guidance, yours or else what ships; constant guidance where nothing was tuned.

    Args:
        path, trained, model, domain, weight: See `tuned_guidance`, also for what is raised.
        constant: Whether it is constant in any case.
    """
    known = [] if constant else tuned_records(path, trained, model or "", domain or "", weight)
    for record, file in known:
        if guidance := record.to_config().guidance:
            if file != SHIPPED:
                log.info("guidance as tuned, by %s", describe_path(file))
            return guidance
    return Constant(weight)


def _files(path: str | Path | None, trained: str | Path) -> dict[Path, DomainRecords]:
    """What is known, by file: one that was asked for has to exist; the default places may be empty."""
    if path is not None:
        return {Path(path): read_records(Path(path))}
    return {file: read_records(file) for file in (Path(trained), SHIPPED) if file.exists()}


def _tuned_for(files: Iterable[DomainRecords], model: str) -> str:
    """The domains for which the model was tuned, and the weights around which it was."""
    known = [record for records in files for record in records.known if record.model == model]
    if not known:
        return "nor for any other of its domains"
    return "only for " + ", ".join(f"{record.domain} around {record.guidance_scale:g}" for record in known)
