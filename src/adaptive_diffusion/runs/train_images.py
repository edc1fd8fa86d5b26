"""`train.py task=encoder` and `task=vicreg`: train an encoder, or go on training it, and write it with its scores."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from omegaconf import DictConfig

from ..encoder.encoder import save_encoder
from ..encoder.encoder_scores import EncoderScores
from ..encoder.encoder_training import EncoderTrainer
from ..encoder.encoder_training_config import EncoderTraining
from ..encoder.image_training import ImageTrainer
from ..encoder.vicreg import save_vicreg
from ..encoder.vicreg_training import LOSS_WEIGHTS, VICRegTrainer, VICRegTraining
from ..interruption import saved_when_interrupted
from ..io.locks import alone
from ..io.training_state import state_tag
from ..tracking.tracker import Run
from .build import build
from .inputs import training_inputs
from .output import log_rows
from .recorded import recorded
from .resumable import announced_progress, resumed_tag

S = TypeVar("S")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderTask(EncoderTraining):
    """`task=encoder`: train the encoder, or go on training it."""

    result: ClassVar[str] = "encoder/encoder.safetensors"

    def run(self, cfg: DictConfig) -> float:
        """Train; the share of held-back images whose label's caption is the nearest.

        Raises:
            UserError: for a value or data that cannot be used; nothing was written then.
            MachineError: if the disk or the database refuses.
        """
        with alone(self.state, cfg.output):
            trainer = EncoderTrainer(self)

            def write(scores: EncoderScores) -> float:
                words = {"words_hash": trainer.words.content_hash}
                save_encoder(cfg.output, trainer.finish().network, {**words, **_metadata(trainer), **asdict(scores)})
                return scores.label_top1

            return _train_and_write(cfg, trainer, "encoder", write)


@dataclass(frozen=True)
class VICRegTask(VICRegTraining):
    """`task=vicreg`: train the VICReg encoder, or go on training it."""

    result: ClassVar[str] = "vicreg/vicreg.safetensors"

    def run(self, cfg: DictConfig) -> float:
        """Train; the weighted loss on held-back images. Errors as of `EncoderTask.run`."""
        with alone(self.state, cfg.output):
            trainer = VICRegTrainer(self)

            def write(losses: dict[str, float]) -> float:
                save_vicreg(cfg.output, trainer.finish().network, {**_metadata(trainer), "losses": losses})
                return sum(LOSS_WEIGHTS[name] * value for name, value in losses.items())

            return _train_and_write(cfg, trainer, "vicreg", write)


def _metadata(trainer: ImageTrainer[Any]) -> dict[str, object]:
    """What every file of a trained network tells of its training, which names no place."""
    training = {name: value for name, value in asdict(trainer.config).items() if name not in ("data", "state")}
    return {"images_seen": trainer.images, "training": training}


def _train_and_write(cfg: DictConfig, trainer: ImageTrainer[S], what: str, write: Callable[[S], float]) -> float:
    """Train to the end, record how, and write the result.

    Args:
        cfg: `conf/train.yaml`, composed and checked.
        trainer: The training; no other process may write its files meanwhile.
        what: What is trained, for the name of the run.
        write: Writes the result, given the scores at the end; returns what a sweeper may minimise.
    """
    c = trainer.config
    tracker, name = build(cfg, "tracking"), f"train {what} {' '.join(c.data)}"
    inputs = training_inputs(c.data, trainer.hashes)
    with recorded(cfg, tracker, name, tags=state_tag(c.state), resume=resumed_tag(trainer), inputs=inputs) as run:
        result = write(_train(trainer, run))

    log_rows({"saved": cfg.output})
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
