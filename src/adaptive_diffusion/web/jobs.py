"""A run of sample.py inside the server, on the one thread that computes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from .. import program
from ..diffusion.first_prediction import KnownFirst
from ..diffusion.node import node_at
from ..io import figures
from ..io.pixels import to_uint8
from ..io.progress import watched
from ..runs.first_use import cost_in_words
from ..runs.identity import identity_of_run
from ..runs.naming import timesteps_source
from ..runs.sample import draw_and_record
from ..runs.setup import Setup, prepare
from ..types import StepTrace
from .worker import PREPARING, Cancelled, HowFar

PREVIEW_EVERY = 0.25  # seconds, at least
PREVIEW_SHARE = 5  # the time between two previews is at least this many times what one takes
SHOWN = {1: 384, 4: 192, 16: 128}  # up to how many images: pixels of a side to which small ones are enlarged, about


@dataclass(frozen=True)
class Drawn:
    """What a run drew.

    Attributes:
        settings: Of sample.py.
        folder: Of the run.
        images: PNG files, which carry their settings.
        metrics: Of the run.
        source: Where the timesteps come from; "" where nobody says.
        notes: Warnings.
    """

    settings: tuple[str, ...]
    folder: Path
    images: tuple[Path, ...]
    metrics: dict[str, float]
    source: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Steps:
    """The steps of a run that was not drawn.

    Attributes:
        timesteps: (n,) where the network is evaluated.
        log_snr: (n,) log(alpha / sigma) there.
        noise: (n,) sigma there.
        passes: (n,) passes through the network that an image takes there.
        source: See `Drawn`.
    """

    timesteps: np.ndarray
    log_snr: np.ndarray
    noise: np.ndarray
    passes: np.ndarray
    source: str


@contextmanager
def job(settings: Sequence[str], name: str = "sample") -> Iterator[DictConfig]:
    """A job of sample.py or train.py, as Hydra would begin it.

    Args:
        settings: `key=value`, as Hydra reads them.
        name: `sample` or `train`.
    """
    with initialize_config_dir(str(program.conf()), version_base="1.3"):
        whole = compose(name, overrides=list(settings), return_hydra_config=True)
    HydraConfig.instance().set_config(whole)
    try:
        OmegaConf.set_readonly(whole.hydra, False)
        whole.hydra.runtime.output_dir = str(whole.hydra.run.dir)
        HydraConfig.instance().set_config(whole)
        yield OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
    finally:
        HydraConfig.instance().cfg = None


Told = HowFar | np.ndarray
"""What a run tells on the way: how far it is, or (N, H, W, C) uint8, what its images look like."""


def draw(settings: Sequence[str], tell: Callable[[Told], None], stop: threading.Event) -> Drawn:
    """Do what sample.py does with these settings.

    Args:
        settings: `key=value`, as Hydra reads them.
        tell: Called on the way.
        stop: Ends the run, once it is set.

    Raises:
        Cancelled: if `stop` was set meanwhile.
    """
    with watched_job(settings, "sample", tell, stop) as (cfg, notes):
        setup = prepare(cfg)
        metrics = draw_and_record(setup, identity_of_run(setup), _Previews(setup, tell))
        folder = Path(setup.cfg.paths.run)
        images = tuple(sorted((folder / "pictures").glob("*.png")))
        return Drawn(tuple(settings), folder, images, metrics, timesteps_source(setup), tuple(notes))


@contextmanager
def watched_job(
    settings: Sequence[str], name: str, tell: Callable[[Any], None], stop: threading.Event
) -> Iterator[tuple[DictConfig, list[str]]]:
    """A `job` that tells how far it is, and may be cancelled; with the warnings that it gives.

    Args:
        settings, name: See `job`.
        tell: Called on the way.
        stop: Ends the block, once it is set.

    Raises:
        Cancelled: if `stop` was set meanwhile.
    """
    watch = Teller(tell, stop)
    with job(settings, name) as cfg, warnings_here() as notes, watched(watch):
        watch.may_end()  # it may have been cancelled while it waited
        tell(PREPARING)
        yield cfg, notes


def steps_of(settings: Sequence[str]) -> Steps:
    """Where a run would evaluate the network; nothing is drawn, calibrated or recorded."""
    with _prepared(settings) as setup:
        t = np.array(setup.scheduler.timesteps, np.float64)
        model = setup.denoiser.with_condition(setup.conditions.rows(setup.cfg.seed, [0]))
        nodes = [node_at(setup.schedule, float(each)) for each in t]
        answering = setup.scheduler.answering(model, (1, *setup.model.state_shape))
        stored = [isinstance(answering, KnownFirst) and answering.known(node) for node in nodes]
        passes = np.array([0 if known else model.passes_at(node) for known, node in zip(stored, nodes, strict=True)])
        log_snr = np.array(setup.schedule.log_snr(t))
        return Steps(t, log_snr, setup.schedule.sigma(t), passes, timesteps_source(setup))


def calibration_cost(settings: Sequence[str]) -> str:
    """What a calibration would take before a run draws, in words; nothing is drawn, calibrated or recorded."""
    with _prepared(settings) as setup:
        return cost_in_words(setup.cfg, setup.model, setup.conditions, setup.denoiser.guidance_scale)


@contextmanager
def _prepared(settings: Sequence[str]) -> Iterator[Setup]:
    """A run that is not drawn, calibrated or recorded."""
    untracked = [each for each in settings if not each.lstrip("+~").startswith("tracking")]
    with job([*untracked, "tracking=none"]) as cfg:
        if "calibrate" in cfg.scheduler:
            cfg.scheduler.calibrate = "never"
        yield prepare(cfg)


def enlarged(images: np.ndarray) -> np.ndarray:
    """(N, H, W, C) uint8 images side by side, small ones enlarged by a whole factor: one (H', W', C) image."""
    return figures.grid(images, cell=next(side for most, side in SHOWN.items() if len(images) <= most))


class Teller:
    """Tells how far a run is, and ends it if that is wanted."""

    def __init__(self, tell: Callable[[Any], None], stop: threading.Event):
        self._tell, self._stop = tell, stop
        self._begun: dict[str, tuple[float, int]] = {}  # unit -> when its count began, and how many were done then

    def may_end(self) -> None:
        """See `io.progress.Watch`."""
        if self._stop.is_set():
            raise Cancelled

    def progress(self, unit: str, done: int, total: int | None) -> None:
        """See `io.progress.Watch`. A count that is back at its beginning is one more, e.g. of another verification."""
        self.may_end()
        now = time.monotonic()
        since, before = self._begun.get(unit, (now, done))
        if done <= before:
            self._begun[unit] = since, before = now, done
        counted = done - before
        left = (now - since) / counted * (total - done) if counted and total else None
        self._tell(HowFar(unit, done, total or 0, left))


class _Previews:
    """Tells what the images of a run look like on the way, as often as costs little."""

    def __init__(self, setup: Setup, tell: Callable[[Told], None]):
        self._setup, self._tell, self._next = setup, tell, 0.0

    def __call__(self, trace: StepTrace) -> None:
        start = time.monotonic()
        if start < self._next:
            return
        images = np.array(self._setup.model.decode(trace.x0))
        self._tell(to_uint8(images))
        took = time.monotonic() - start
        self._next = start + max(PREVIEW_EVERY, (1 + PREVIEW_SHARE) * took)


@contextmanager
def warnings_here() -> Iterator[list[str]]:
    """The warnings of this thread within the block."""
    found: list[str] = []
    here = threading.get_ident()

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == here:
                found.append(record.getMessage())

    handler, logger = Kept(logging.WARNING), logging.getLogger(__name__.partition(".")[0])
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
