"""`train.py task=vicreg`: train the VICReg encoder, or go on training it, and write it with its losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import DictConfig

from ..encoder.vicreg import save_vicreg
from ..encoder.vicreg_training import LOSS_WEIGHTS, VICRegTrainer, VICRegTraining
from ..io.locks import alone
from .train_images import metadata, train_and_write


@dataclass(frozen=True)
class VICRegTask(VICRegTraining):
    """`task=vicreg`: train the VICReg encoder, or go on training it."""

    result: ClassVar[str] = "vicreg/vicreg.safetensors"

    def run(self, cfg: DictConfig) -> float:
        """Train; the weighted loss on held-back images.

        Raises:
            UserError: for a value or data that cannot be used; nothing was written then.
            MachineError: if the disk or the database refuses.
        """
        with alone(self.state, cfg.output):
            trainer = VICRegTrainer(self)
            return train_and_write(cfg, trainer, "vicreg", lambda scores: _write(cfg.output, trainer, scores))


def _write(output: str, trainer: VICRegTrainer, scores: dict[str, float]) -> float:
    facts = {**metadata(trainer.config, trainer.images), "losses": scores}
    save_vicreg(output, trainer.finish().network, facts)
    return sum(LOSS_WEIGHTS[name] * value for name, value in scores.items())
