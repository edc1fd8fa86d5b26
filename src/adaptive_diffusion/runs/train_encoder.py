"""`train.py task=encoder`: train the encoder, or go on training it, and write it with its scores."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

from omegaconf import DictConfig

from ..encoder.encoder import save_encoder
from ..encoder.encoder_scores import EncoderScores
from ..encoder.encoder_training import EncoderTrainer
from ..encoder.encoder_training_config import EncoderTraining
from ..io.locks import alone
from .train_images import metadata, train_and_write


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
            return train_and_write(cfg, trainer, "encoder", lambda scores: _write(cfg.output, trainer, scores))


def _write(output: str, trainer: EncoderTrainer, scores: EncoderScores) -> float:
    facts = {"words_hash": trainer.words.content_hash, **metadata(trainer.config, trainer.images), **asdict(scores)}
    save_encoder(output, trainer.finish().network, facts)
    return scores.label_top1
