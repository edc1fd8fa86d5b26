"""`train.py task=model`: train the U-Net, or go on training it, and write it with samples of its progress."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np
from omegaconf import DictConfig

from ..diffusion.checks import check_count
from ..diffusion.conditions import conditions_of
from ..diffusion.rng import image_keys, normal
from ..diffusion.schedule import NoiseSchedule
from ..interruption import saved_when_interrupted
from ..io import figures
from ..io.counted import count
from ..io.locks import alone
from ..io.pixels import to_uint8
from ..io.progress import Progress
from ..io.training_state import state_tag
from ..models.checkpoint import save_model
from ..models.resumable import TrainingEvent
from ..models.training import Trainer
from ..models.training_config import TrainingConfig
from ..models.training_steps import crossed
from ..sampling.standard import StandardSampler
from ..schedulers.classes import DPMSolverScheduler
from ..tracking.tracker import Run, Tracker
from .build import build
from .inputs import training_inputs
from .output import log_rows, look
from .recorded import recorded
from .resumable import announced_progress, resumed_tag
from .settings_text import domain_settings, draw_command, setting

log = logging.getLogger(__name__)

SHOWN = ("log_every", "preview_every", "preview_samples", "preview_steps")  # settings of what is shown on the way


@dataclass(frozen=True)
class ModelTask(TrainingConfig):
    """`task=model`: train the U-Net, or go on training it.

    Attributes:
        log_every: Images between two points of the loss curve.
        preview_every: Images between two grids of samples.
        preview_samples: Images of each domain in a grid.
        preview_steps: Solver steps of a preview, 1 up to the training timesteps.
    """

    log_every: int = 5_000
    preview_every: int = 50_000
    preview_samples: int = 8
    preview_steps: int = 15

    result: ClassVar[str] = "model/model.safetensors"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in SHOWN:
            check_count(name, getattr(self, name), 1)
        check_count("preview_steps", self.preview_steps, 1, NoiseSchedule(**self.noise_schedule).num_train_timesteps)

    def recipe(self) -> dict[str, Any]:
        """See `TrainingConfig.recipe`; what is shown on the way decides nothing."""
        return {name: value for name, value in super().recipe().items() if name not in SHOWN}

    def run(self, cfg: DictConfig) -> float:
        """Train; the validation loss at the end (NaN without held-back images).

        Raises:
            UserError: for a value or data that cannot be used; nothing was written then.
            MachineError: if the disk or the database refuses.
        """
        # Of several processes that share each batch, only the first writes.
        with alone(self.state, cfg.output) if mx.distributed.init().rank() == 0 else nullcontext():
            return _train(cfg, self)


def _train(cfg: DictConfig, task: ModelTask) -> float:
    """Train, while no other process writes the same files; the validation loss at the end."""
    trainer = Trainer(task)
    if trainer.group.rank() > 0:
        return _to_the_end(trainer, report=lambda event: None)

    tracker: Tracker = build(cfg, "tracking")
    tags, name = state_tag(trainer.config.state), f"train {' '.join(trainer.corpus.domains)}"
    inputs = training_inputs(trainer.config.data, trainer.hashes)
    with (
        recorded(cfg, tracker, name, tags=tags, resume=resumed_tag(trainer), inputs=inputs) as run,
        announced_progress(trainer) as progress,
    ):
        finished_before = trainer.finished
        validation = _to_the_end(trainer, _Report(run, cfg, task, trainer, progress))
        if finished_before:  # the model may be wanted in another place
            write_model(cfg, trainer, validation)

    _summarise(cfg, trainer, validation, tracker, run.page)
    return validation


def _to_the_end(trainer: Trainer, report: Callable[[TrainingEvent[float]], None]) -> float:
    """Train; the validation loss at the end."""
    validation = trainer.scores() if trainer.finished else float("nan")

    with saved_when_interrupted(trainer) as step_done:
        for event in trainer.run():
            if event.scores is not None:
                validation = event.scores
            report(event)
            step_done()

    return validation


def _summarise(cfg: DictConfig, trainer: Trainer, validation: float, tracker: Tracker, page: str | None) -> None:
    """Print what was trained, where it is, and how to draw with it."""
    where = ("model=checkpoint", setting("model.path", cfg.output))
    rows = {
        "trained": f"{count(trainer.images, 'image')}, {_said(validation)}",
        "saved": str(cfg.output),
        "draw": draw_command(*where, *domain_settings(trainer.corpus.domains[0])),
    }
    log_rows({**rows, **look(tracker, page)})


def preview(trainer: Trainer, samples: int, steps: int) -> np.ndarray:
    """Samples of the averaged weights, one row per domain, as one (H, W, C) uint8 image."""
    model, c = trainer.ema_model(), trainer.config
    scheduler = DPMSolverScheduler(prediction_type=c.prediction_type, clip_sample=True, **c.noise_schedule)
    guided = scheduler.guided(model, None, c.guidance_scale)

    side, channels = model.config.image_size, model.config.in_channels
    keys = image_keys(0, range(samples))
    x_T = normal(keys, (side, side, channels))

    rows = []
    for domain in trainer.corpus.domains:
        scheduler.set_timesteps(steps)
        condition = conditions_of(model, domain, None, domain).rows(0, range(samples))
        result = StandardSampler(scheduler).run(guided, x_T, condition=condition, keys=keys)
        rows.append(np.array(result.images))

    return figures.grid(to_uint8(np.concatenate(rows)), columns=samples)


def write_model(cfg: DictConfig, trainer: Trainer, validation_loss: float) -> None:
    """Write the averaged weights, float16, with what is known of them."""
    known = {**trainer.metadata(), "validation_loss": validation_loss}
    save_model(cfg.output, trainer.ema_model(), known, dtype=mx.float16)


def _said(validation: float) -> str:
    return "no image is held back to validate on" if np.isnan(validation) else f"validation loss {validation:.4f}"


class _Report:
    """Turns training events into progress, loss curves, model files and sample grids."""

    def __init__(self, run: Run, cfg: DictConfig, task: ModelTask, trainer: Trainer, progress: Progress):
        self._run, self._cfg, self._task, self._trainer, self._progress = run, cfg, task, trainer, progress
        self._losses: list[float] = []  # since the last point of the curves
        self._seconds = 0.0

    def __call__(self, event: TrainingEvent[float]) -> None:
        self._losses.append(event.losses["loss"])
        self._seconds += event.seconds
        batch_size = self._trainer.config.batch_size
        self._progress.update(batch_size)

        if event.scores is not None:
            self._run.metrics({"validation/loss": event.scores}, event.images)
            self._curve(event)
            write_model(self._cfg, self._trainer, event.scores)
            log.info("%9d images  %s", event.images, _said(event.scores))
        elif crossed(self._task.log_every, event.images, batch_size):
            self._curve(event)

        if self._trainer.finished or crossed(self._task.preview_every, event.images, batch_size):
            self._samples(event)

    def _samples(self, event: TrainingEvent[float]) -> None:
        """Draw with the averaged weights, and keep the images."""
        pixels = preview(self._trainer, self._task.preview_samples, self._task.preview_steps)
        figures.save_image(Path(self._cfg.paths.run) / "previews" / f"{event.images:09d}.png", pixels)
        self._run.image(pixels, "samples", event.images)

    def _curve(self, event: TrainingEvent[float]) -> None:
        """Record a point of the curves: means since the last one."""
        rate = len(self._losses) * self._trainer.config.batch_size / self._seconds
        loss = float(np.mean(self._losses))
        values = {"loss": loss, "learning_rate": self._trainer.learning_rate(event.step - 1), "images_per_second": rate}
        self._run.metrics({f"train/{name}": value for name, value in values.items()}, event.images)
        self._progress.show(loss=f"{loss:.4f}")
        self._losses, self._seconds = [], 0.0
