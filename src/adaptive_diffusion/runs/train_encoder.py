"""The story of `train.py task=encoder`: read the pictures, go on from the state, train, measure, write the encoder."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from omegaconf import DictConfig, OmegaConf

from ..encoder.encoder import save_encoder
from ..encoder.encoder_scores import EncoderScores
from ..encoder.encoder_training import EncoderTrainer
from ..encoder.encoder_training_config import EncoderTraining
from ..interruption import saved_when_interrupted
from ..io.files import write_text
from ..io.locks import alone
from ..io.training_state import state_tag
from ..tracking.provenance import git_state, parameters
from ..tracking.tracker import Run
from .build import build
from .naming import labels, progress_bar

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderTask(EncoderTraining):
    """`task=encoder`: train the encoder, or go on training it."""

    result: ClassVar[str] = "encoder/encoder.safetensors"

    def run(self, cfg: DictConfig) -> float:
        """Train; the share of held-back pictures whose label's caption is the nearest.

        Raises:
            UserError: for a value or data that cannot be used; nothing was written then.
            MachineError: if the disk or the database refuses.
        """
        with alone(self.state, cfg.output):
            return _train_and_write(cfg, EncoderTrainer(self))


def _train_and_write(cfg: DictConfig, trainer: EncoderTrainer) -> float:
    """Train, while nobody else writes the same files."""
    tracker, git, c = build(cfg, "tracking"), git_state(), trainer.config
    identity = state_tag(c.state)
    tags = {**identity, **labels(cfg), **(git.tags if git else {})}
    name = cfg.name or f"train encoder {' '.join(c.data)}"
    if trainer.step:
        log.info("going on from %s at %d of %d pictures", c.state, trainer.images, c.images)
    with tracker.open(name, params=parameters(cfg), tags=tags, resume=identity if trainer.step else None) as run:
        scores = _train(trainer, run)
        known = {"words_hash": trainer.words.content_hash, "images_seen": trainer.images, **asdict(scores)}
        known["training"] = {k: v for k, v in asdict(c).items() if k not in ("data", "state")}
        save_encoder(cfg.output, trainer.finish().network, known)
        write_text(Path(cfg.paths.run) / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        run.folder(cfg.paths.run)
    log.info("%-11s%s", "saved", cfg.output)
    return scores.label_top1


def _train(trainer: EncoderTrainer, run: Run) -> EncoderScores:
    """Train to the end and record how; the scores at the end, which are measured again if there is nothing to do."""
    scores: EncoderScores | None = None
    recent: list[dict[str, float]] = []
    bar = progress_bar(trainer.config.images, "picture", trainer.images)
    with bar, saved_when_interrupted(trainer) as step_done:
        for event in trainer.run():
            recent.append(event.losses)
            bar.update(trainer.config.batch_size)
            if event.scores is not None:
                scores = event.scores
                means = {f"train/{part}": float(np.mean([losses[part] for losses in recent])) for part in recent[0]}
                run.metrics({**means, **flat(scores)}, event.images)
                log.info("%9d pictures  %s", event.images, summary(scores))
                recent = []
            step_done()
    return scores or trainer.scores()


def flat(scores: EncoderScores) -> dict[str, float]:
    """The scores as metrics of a run."""
    values = {f"validation/{k}": v for k, v in asdict(scores).items() if k != "domain"}
    return {**values, **{f"validation/domain_{d}": share for d, share in scores.domain.items()}}


def summary(scores: EncoderScores) -> str:
    """The scores in one line."""
    domains = ", ".join(f"{d} {share:.1%}" for d, share in scores.domain.items())
    return f"label {scores.label_top1:.1%} (top 5 {scores.label_top5:.1%}), domain {domains}"
