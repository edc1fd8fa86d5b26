"""The story of `train.py task=model`: read the pictures, go on from the state, train, show samples, write the model."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import mlx.core as mx
import numpy as np
from omegaconf import DictConfig, OmegaConf

from ..diffusion.checks import check_count
from ..diffusion.guidance import GuidedDenoiser
from ..diffusion.rng import image_keys, normal
from ..errors import UserError
from ..interruption import saved_when_interrupted
from ..io import figures
from ..io.files import write_text
from ..io.locks import alone
from ..io.pixels import to_uint8
from ..io.training_state import state_tag
from ..models.checkpoint import save_model
from ..models.training import Trainer, TrainingEvent
from ..models.training_config import TrainingConfig
from ..sampling.standard import StandardSampler
from ..schedulers.classes import DPMSolverScheduler
from ..tracking.commands import domain_settings, draw_command, setting
from ..tracking.provenance import git_state, parameters
from ..tracking.tracker import NoTracker, Run
from .build import build
from .naming import labels, progress_bar

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelTask(TrainingConfig):
    """`task=model`: train the U-Net, or go on training it."""

    result: ClassVar[str] = "model/model.safetensors"

    def run(self, cfg: DictConfig) -> float:
        """Train; the validation loss at the end (NaN without held-back pictures).

        Raises:
            UserError: for a value or data that cannot be used; nothing was written then.
            MachineError: if the disk or the database refuses.
        """
        _check(cfg)
        with alone(self.state, cfg.output) if mx.distributed.init().rank() == 0 else nullcontext():
            return _train(cfg, self)


def _train(cfg: DictConfig, config: TrainingConfig) -> float:
    """Train, while nobody else writes the same files."""
    trainer = Trainer(config)
    c, first = trainer.config, trainer.group.rank() == 0
    tracker = build(cfg, "tracking") if first else NoTracker()
    git = git_state()
    identity = state_tag(c.state)
    tags = {**identity, **labels(cfg), **(git.tags if git else {})}
    name = cfg.name or f"train {' '.join(trainer.corpus.domains)}"
    if trainer.step and first:
        log.info("going on from %s at %d of %d pictures", c.state, trainer.images, c.images)
    resume = identity if trainer.step else None
    with tracker.open(name, params=parameters(cfg), tags=tags, resume=resume) as run:
        validation = float("nan")
        report = _Report(run, cfg, trainer) if first else None
        if trainer.step == trainer.config.steps():  # nothing to do but to write the model, perhaps to another place
            validation = trainer.validation_loss()
            if first:
                write_model(cfg, trainer, validation)
        with saved_when_interrupted(trainer) as step_done:
            for event in trainer.run():
                if event.validation_loss is not None:
                    validation = event.validation_loss
                if report is not None:
                    report(event)
                step_done()
        if report is not None:
            report.end()
    if first:
        log.info("%-11s%d pictures, validation loss %.4f", "trained", trainer.images, validation)
        log.info("%-11s%s", "saved", cfg.output)
        domain = trainer.corpus.domains[0]
        where = ("model=checkpoint", setting("model.path", cfg.output))
        log.info("%-11s%s", "draw", draw_command(*where, *domain_settings(domain)))
        if command := tracker.how_to_look():
            log.info("%-11s%s\n%-11s%s", "look", command, "", run.page)
    return validation


def preview(trainer: Trainer, samples: int, steps: int) -> np.ndarray:
    """Samples of the averaged weights, one row per domain, as one (H, W, C) uint8 picture."""
    model = trainer.ema_model()
    scheduler = DPMSolverScheduler(
        prediction_type=trainer.config.prediction_type, clip_sample=True, **trainer.config.noise_schedule
    )
    side, channels = model.config.image_size, model.config.in_channels
    keys, rows = image_keys(0, range(samples)), []
    for domain in range(len(trainer.corpus.domains)):
        scheduler.set_timesteps(steps)
        condition = mx.array([[domain + 1, 0]] * samples, dtype=mx.int32)
        denoiser, x_T = GuidedDenoiser(model, trainer.config.guidance_scale), normal(keys, (side, side, channels))
        rows.append(np.array(StandardSampler(scheduler).run(denoiser, x_T, condition=condition, keys=keys).images))
    return figures.grid(to_uint8(np.concatenate(rows)), columns=samples)


def write_model(cfg: DictConfig, trainer: Trainer, validation_loss: float) -> None:
    """Write the averaged weights, float16, with what is known of them."""
    known = {**trainer.metadata(), "validation_loss": validation_loss}
    save_model(cfg.output, trainer.ema_model(), known, dtype=mx.float16)


class _Report:
    """Turns training events into a progress bar, loss curves, model files and sample grids."""

    def __init__(self, run: Run, cfg: DictConfig, trainer: Trainer):
        self._run, self._cfg, self._trainer = run, cfg, trainer
        self._losses: list[float] = []
        self._seconds = 0.0
        self._bar = progress_bar(trainer.config.images, "picture", trainer.images, unit_scale=True, smoothing=0.05)

    def __call__(self, event: TrainingEvent) -> None:
        self._losses.append(event.loss)
        self._seconds += event.seconds
        self._bar.update(self._trainer.config.batch_size)
        if event.validation_loss is not None:
            self._run.metrics({"validation/loss": event.validation_loss}, event.images)
            self._curve(event)
            write_model(self._cfg, self._trainer, event.validation_loss)
            log.info("%9d pictures  validation loss %.4f", event.images, event.validation_loss)
        elif self._trainer.passes(self._cfg.log_every):
            self._curve(event)
        if self._trainer.passes(self._cfg.preview_every) or event.step == self._trainer.config.steps():
            c = self._cfg
            pixels = preview(self._trainer, c.preview_samples, c.preview_steps)
            figures.save_image(Path(c.paths.run) / "previews" / f"{event.images:09d}.png", pixels)
            self._run.image(pixels, "samples", event.images)

    def end(self) -> None:
        """Close the bar and keep the files of the run's folder."""
        self._bar.close()
        folder = Path(self._cfg.paths.run)
        write_text(folder / "config.yaml", OmegaConf.to_yaml(self._cfg, resolve=True))
        self._run.folder(folder)

    def _curve(self, event: TrainingEvent) -> None:
        """Log a point of the curves: means since the last one."""
        rate = len(self._losses) * self._trainer.config.batch_size / self._seconds
        values = {"train/loss": float(np.mean(self._losses)), "train/learning_rate": event.learning_rate}
        self._run.metrics({**values, "train/pictures_per_s": rate}, event.images)
        self._bar.set_postfix(loss=f"{values['train/loss']:.4f}")
        self._losses, self._seconds = [], 0.0


def _check(cfg: DictConfig) -> None:
    try:
        for key in ("log_every", "preview_every", "preview_samples", "preview_steps"):
            check_count(key, cfg[key], 1)
        check_count("preview_steps", cfg.preview_steps, 1, cfg.task.noise_schedule.num_train_timesteps)
    except ValueError as error:
        raise UserError(str(error)) from None
