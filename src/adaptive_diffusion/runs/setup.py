"""From a configuration to everything that a sampling run needs. Whatever cannot be used is refused here."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from omegaconf import DictConfig

from ..diffusion.checks import LARGEST_IMAGE, check_count, check_number, check_seed
from ..diffusion.conditions import NO_LABEL, Conditions, Same, conditions_of
from ..diffusion.facts import ModelFacts
from ..diffusion.guidance import Guidance, checked_guidance
from ..diffusion.guided_model import GuidedModel
from ..diffusion.rng import image_keys, normal
from ..diffusion.schedule import NoiseSchedule
from ..encoder.captions import plain_caption
from ..encoder.domain import Choice
from ..errors import Unusable, UserError
from ..grids.base import Spacing
from ..io.image_file import read_picture
from ..metrics.quality import PictureMetrics
from ..sampling.standard import StandardSampler
from ..sampling.starts import FromPicture, NearNoise, Start, last_timesteps, set_timesteps
from ..schedulers.adaptive import AdaptiveScheduler
from ..schedulers.core import SchedulerCore
from ..tracking.tracker import NoTracker, Tracker
from ..types import PictureModel
from .build import build
from .checks import as_user_error, check_calibration, check_grid, checked, warn_of_another_domain
from .first_use import calibrate_on_first_use
from .guidance_settings import (
    check_fits_scheduler,
    check_tuned,
    effective_in,
    keyed_by_guidance,
    warn_of_no_guidance,
    warn_of_strong_guidance,
)
from .open_settings import image_channels, scheduler_arguments, settled
from .prompts import follow_prompt
from .settings_text import given

log = logging.getLogger(__name__)

MOST_IMAGES = 1_000_000  # all are kept in memory


@dataclass(frozen=True)
class Setup:
    """Everything that a sampling run needs.

    Attributes:
        cfg: The configuration with every value filled in that the model decides.
        model: The network.
        denoiser: The network with its noise process and its guidance; it counts its evaluations and passes.
        scheduler: Spacing and solver, fitted to the model.
        grid: Timesteps that replace those of the scheduler, or None.
        sampler: The loop.
        caption: The content of the images in words: the prompt, or a caption made of domain and label.
        conditions: What images are conditioned on.
        choice: Domain and label that the prompt led to, or None.
        starts: Changes of the noise before the first step, in order; () for plain noise.
        metrics: The measures of the images.
        tracker: Where the run is recorded.
    """

    cfg: DictConfig
    model: PictureModel
    denoiser: GuidedModel
    scheduler: SchedulerCore
    grid: Spacing | None
    sampler: StandardSampler
    caption: str
    conditions: Conditions
    choice: Choice | None
    starts: tuple[Start, ...]
    metrics: PictureMetrics
    tracker: Tracker

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule that the model was trained with."""
        return ModelFacts.of(self.model).process

    def start(self, noise: mx.array) -> mx.array:
        """(B, H, W, C) standard normal noise -> the states that a batch begins with."""
        for start in self.starts:
            noise = start(noise)
        return noise

    def set_timesteps(self) -> None:
        """Set the scheduler's timesteps: `num_steps` of them, or only the last ones if an image is the beginning."""
        set_timesteps(self.scheduler, self.grid, self.schedule, self.cfg.num_steps)
        if self.cfg.init_image is not None:
            last_timesteps(self.scheduler, self.cfg.strength)


def prepare(cfg: DictConfig) -> Setup:
    """Build and check everything that a sampling run needs.

    Raises:
        UserError: for a missing, unknown or contradictory value.
    """
    cfg = checked(cfg)
    _check_numbers(cfg)
    tracker: Tracker = build(cfg, "tracking")
    if isinstance(tracker, NoTracker) and cfg.skip_finished and given("skip_finished"):
        log.warning("skip_finished=true has no effect with tracking=none: what has finished is read from MLflow")

    # The prompt chooses domain and label, and the model settles everything that was left open.
    model: PictureModel = build(cfg, "model")
    cfg, choice = follow_prompt(cfg, model)
    caption = cfg.prompt or plain_caption(cfg.domain.name, None if cfg.label == NO_LABEL else cfg.label)
    conditions = conditions_of(model, cfg.domain.name, cfg.label, caption)
    cfg = settled(cfg, model)

    check_calibration("scheduler.calibration", cfg.scheduler.get("calibration"), cfg, model)
    check_calibration("grid", cfg.grid, cfg, model)
    decided = scheduler_arguments(cfg, model)
    if cfg.num_steps is not None:
        with as_user_error():
            check_count("num_steps", cfg.num_steps, 1, ModelFacts.of(model).process.num_train_timesteps)
    check_tuned(cfg)
    guidance = effective_in(cfg, model, checked_guidance(build(cfg, "guidance")))
    check_fits_scheduler(cfg, guidance)
    warn_of_strong_guidance(guidance)
    looked_for = keyed_by_guidance(cfg, guidance)
    scheduler: SchedulerCore = build(looked_for, "scheduler", **decided)
    if isinstance(guidance, Guidance):  # one number is among the settings of the scheduler
        scheduler.suit(model.identity, cfg.domain.name, guidance)
    if cfg.num_steps is None:
        cfg.num_steps = len(scheduler)  # as it was tuned

    grid: Spacing | None = build(looked_for, "grid")
    check_grid(scheduler, grid)

    starts = _starts(cfg, model, scheduler)
    if cfg.variation is not None and cfg.variation < 1:  # of image 0, and so of its label; 1 leaves nothing of it
        conditions = _as_image_0(conditions, cfg.seed)
    sampler: StandardSampler = build(cfg, "sampler", scheduler=scheduler)
    denoiser = scheduler.guided(model, None, guidance)
    metrics: PictureMetrics = build(cfg, "metrics")
    setup = Setup(cfg, model, denoiser, scheduler, grid, sampler, caption, conditions, choice, starts, metrics, tracker)

    # Nothing is wrong with the settings, so the work may begin.
    found = calibrate_on_first_use(cfg, model, conditions, guidance)
    if found is not None and isinstance(scheduler, AdaptiveScheduler):
        scheduler.reconfigure(calibration=found)
    if model.conditional:
        warn_of_another_domain(cfg, scheduler, grid)

    # Some schedulers and samplers refuse timesteps only when they get them.
    try:
        setup.set_timesteps()
    except Unusable:
        raise
    except ValueError as error:
        raise UserError(f"scheduler: {error}") from error
    sampler.check()
    warn_of_no_guidance(cfg, denoiser, scheduler.timesteps)

    return setup


def _check_numbers(cfg: DictConfig) -> None:
    """Refuse numbers that no model could draw with."""
    with as_user_error():
        check_count("num_samples", cfg.num_samples, 1, MOST_IMAGES)
        check_count("batch_size", cfg.batch_size, 1, MOST_IMAGES)
        check_seed("seed", cfg.seed)
        if cfg.image_size is not None:
            check_count("image_size", cfg.image_size, 1, LARGEST_IMAGE)
        check_number("strength", cfg.strength, 0, 1, above=True)
        if cfg.variation is not None:
            check_number("variation", cfg.variation, 0, 1)
    if cfg.init_image is None and given("strength"):
        log.warning("strength=%g has no effect without init_image", cfg.strength)


def _as_image_0(conditions: Conditions, seed: int) -> Conditions:
    """What image 0 of a seed is conditioned on, for all images."""
    rows = conditions.rows(seed, [0])
    return Same() if rows is None else Same(tuple(map(int, np.array(rows[0]))))


def _starts(cfg: DictConfig, model: PictureModel, scheduler: SchedulerCore) -> tuple[Start, ...]:
    """What changes the noise before the first step: `variation`, `init_image`."""
    if cfg.benchmark is not None and (cfg.variation is not None or cfg.init_image is not None):
        raise UserError("a benchmark begins with plain noise; leave variation and init_image out")
    starts: list[Start] = []

    if cfg.variation is not None:
        first_noise = normal(image_keys(cfg.seed, [0]), model.state_shape)[0]
        starts.append(NearNoise(first_noise, cfg.variation))

    if cfg.init_image is not None:
        image = mx.array(read_picture(cfg.init_image, model.picture_size, image_channels(model)))
        starts.append(FromPicture(model.encode(image[None])[0], scheduler))

    return tuple(starts)
