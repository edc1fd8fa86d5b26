"""The story of `train.py task=encoder`: read the pictures, train both towers, measure them, write the encoder."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from . import figures
from .metrics.encoder import save_encoder
from .metrics.encoder_training import EncoderScores, EncoderTrainer
from .parts import build
from .provenance import git_state, parameters
from .run import labels, progress_bar, training_configuration

log = logging.getLogger(__name__)


def train_encoder(cfg: DictConfig) -> float:
    """Train the encoder.

    Args:
        cfg: `conf/train.yaml`, composed, with an `EncoderTraining` as its task.

    Returns:
        Share of held-back pictures whose label's caption is the nearest.

    Raises:
        UserError: for a value or data that cannot be used; nothing was written then.
        MachineError: if the disk or the database refuses.
    """
    cfg = training_configuration(cfg, "encoder")
    trainer = EncoderTrainer(build(cfg, "task"))
    tracker, git, c = build(cfg, "tracking"), git_state(cfg.paths.root), trainer.config
    name, tags = cfg.name or f"train encoder {' '.join(c.data)}", {**labels(cfg), **(git.tags if git else {})}
    scores: EncoderScores | None = None
    with tracker.open(name, params=parameters(cfg), tags=tags) as run, progress_bar(c.images, "picture") as bar:
        recent: list[dict[str, float]] = []
        for event in trainer.run():
            recent.append(event.losses)
            bar.update(c.batch_size)
            if event.scores is None:
                continue
            scores = event.scores
            means = {f"train/{part}": float(np.mean([losses[part] for losses in recent])) for part in recent[0]}
            run.metrics({**means, **flat(scores)}, event.images)
            log.info("%9d pictures  %s", event.images, summary(scores))
            recent = []
        assert scores is not None
        known = {"words_hash": trainer.words.content_hash, "images_seen": event.images, **asdict(scores)}
        known["training"] = {k: v for k, v in asdict(c).items() if k != "data"}
        save_encoder(cfg.output, trainer.finish().network, known)
        figures.write_text(Path(cfg.paths.run) / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        run.folder(cfg.paths.run)
    log.info("%-11s%s", "saved", cfg.output)
    return scores.label_top1


def flat(scores: EncoderScores) -> dict[str, float]:
    """The scores as metrics of a run."""
    values = {f"validation/{k}": v for k, v in asdict(scores).items() if k != "domain"}
    return {**values, **{f"validation/domain_{d}": share for d, share in scores.domain.items()}}


def summary(scores: EncoderScores) -> str:
    """The scores in one line."""
    domains = ", ".join(f"{d} {share:.1%}" for d, share in scores.domain.items())
    return f"label {scores.label_top1:.1%} (top 5 {scores.label_top5:.1%}), domain {domains}"
