"""`train.py task=encoder`: train the encoder, or go on training it, and write it with its scores."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
from omegaconf import DictConfig

from ..encoder.encoder import save_encoder
from ..encoder.encoder_scores import EncoderScores
from ..encoder.encoder_training import EncoderTrainer
from ..encoder.encoder_training_config import EncoderTraining
from ..interruption import saved_when_interrupted
from ..io.locks import alone
from ..io.training_state import state_tag
from ..tracking.tracker import Run
from .build import build
from .recorded import recorded
from .resumable import announced_progress, resumed_tag

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
            return _train_and_write(cfg, EncoderTrainer(self))


def _train_and_write(cfg: DictConfig, trainer: EncoderTrainer) -> float:
    """Train, while no other process writes the same files."""
    c, tracker = trainer.config, build(cfg, "tracking")
    name = f"train encoder {' '.join(c.data)}"

    with recorded(cfg, tracker, name, tags=state_tag(c.state), resume=resumed_tag(trainer)) as run:
        scores = _train(trainer, run)
        save_encoder(cfg.output, trainer.finish().network, _metadata(trainer, scores))

    log.info("%-11s%s", "saved", cfg.output)
    return scores.label_top1


def _train(trainer: EncoderTrainer, run: Run) -> EncoderScores:
    """Train to the end and record how; the scores at the end."""
    scores: EncoderScores | None = None
    recent: list[dict[str, float]] = []

    with announced_progress(trainer) as progress, saved_when_interrupted(trainer) as step_done:
        for event in trainer.run():
            recent.append(event.losses)
            progress.update(trainer.config.batch_size)

            if event.scores is not None:
                scores = event.scores
                means = {f"train/{name}": float(np.mean([losses[name] for losses in recent])) for name in recent[0]}
                run.metrics({**means, **flat(scores)}, event.images)
                log.info("%9d images  %s", event.images, summary(scores))
                recent = []

            step_done()

    # Of a training that was finished before, nothing was measured here.
    return scores or trainer.scores()


def _metadata(trainer: EncoderTrainer, scores: EncoderScores) -> dict[str, object]:
    """What is stored in the file beside the weights."""
    training = {name: value for name, value in asdict(trainer.config).items() if name not in ("data", "state")}
    seen = {"words_hash": trainer.words.content_hash, "images_seen": trainer.images}
    return {**seen, **asdict(scores), "training": training}


def flat(scores: EncoderScores) -> dict[str, float]:
    """The scores as metrics of a run."""
    values = {f"validation/{name}": value for name, value in asdict(scores).items() if name != "domain"}
    return {**values, **{f"validation/domain_{domain}": share for domain, share in scores.domain.items()}}


def summary(scores: EncoderScores) -> str:
    """The scores in one line."""
    domains = ", ".join(f"{domain} {share:.1%}" for domain, share in scores.domain.items())
    return f"label {scores.label_top1:.1%} (top 5 {scores.label_top5:.1%}), domain {domains}"
