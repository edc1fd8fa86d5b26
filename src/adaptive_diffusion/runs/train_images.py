"""What the tasks that train an encoder share: the recorded run, its progress, and the file at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

import numpy as np
from omegaconf import DictConfig

from ..encoder.image_training import ImageTrainer, ImageTraining
from ..interruption import saved_when_interrupted
from ..io.training_state import state_tag
from ..tracking.tracker import Run
from .build import build
from .inputs import training_inputs
from .recorded import recorded
from .resumable import announced_progress, resumed_tag

S = TypeVar("S")
log = logging.getLogger(__name__)


def train_and_write(cfg: DictConfig, trainer: ImageTrainer[S], what: str, write: Callable[[S], float]) -> float:
    """Train to the end, record how, and write the result; no other process may write the same files.

    Args:
        cfg: `conf/train.yaml`, composed and checked.
        trainer: The training.
        what: What is trained, for the name of the run.
        write: Writes the result, given the scores at the end; returns what a sweeper may minimise.
    """
    c = trainer.config
    tracker, name = build(cfg, "tracking"), f"train {what} {' '.join(c.data)}"
    inputs = training_inputs(c.data, trainer.hashes)
    with recorded(cfg, tracker, name, tags=state_tag(c.state), resume=resumed_tag(trainer), inputs=inputs) as run:
        result = write(_train(trainer, run))

    log.info("%-11s%s", "saved", cfg.output)
    return result


def _train(trainer: ImageTrainer[S], run: Run) -> S:
    """Train to the end and record how; the scores at the end."""
    scores: S | None = None
    recent: list[dict[str, float]] = []

    with announced_progress(trainer) as progress, saved_when_interrupted(trainer) as step_done:
        for event in trainer.run():
            recent.append(event.losses)
            progress.update(trainer.config.batch_size)

            if event.scores is not None:
                scores = event.scores
                means = {f"train/{name}": float(np.mean([losses[name] for losses in recent])) for name in recent[0]}
                values = flat(scores)
                run.metrics({**means, **{f"validation/{name}": value for name, value in values.items()}}, event.images)
                log.info("%9d images  %s", event.images, ", ".join(f"{k} {v:.3g}" for k, v in values.items()))
                recent = []

            step_done()

    # Of a training that was finished before, nothing was measured here.
    return scores or trainer.scores()


def flat(scores: Any, prefix: str = "") -> dict[str, float]:
    """Scores, a dataclass or a dictionary of numbers and of dictionaries, as one dictionary of numbers."""
    values: dict[str, float] = {}
    if is_dataclass(scores) and not isinstance(scores, type):
        scores = asdict(scores)
    for name, value in scores.items():
        values |= flat(value, f"{prefix}{name}_") if isinstance(value, dict) else {prefix + name: value}
    return values


def metadata(config: ImageTraining, images: int) -> dict[str, object]:
    """What every file of a trained network tells of its training, which names no place."""
    training = {name: value for name, value in asdict(config).items() if name not in ("data", "state")}
    return {"images_seen": images, "training": training}
