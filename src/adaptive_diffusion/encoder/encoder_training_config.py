"""The settings of a training run of the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..diffusion.checks import check_choice, check_count, check_number, check_seed
from ..io.splits import SPLITS
from .captions import SUBJECTS
from .network import EncoderConfig


@dataclass(frozen=True)
class EncoderTraining:
    """One training run; every field is a key of `conf/task/encoder.yaml`.

    Attributes:
        data: Domain name -> folder or array file of its images.
        state: Resumable state file of the run (`.safetensors`).
        images: Images of the whole run.
        batch_size: Images per optimiser step.
        learning_rate: Peak learning rate of AdamW. It rises over the first twentieth of the run and falls to 0 as a
            cosine.
        weight_decay: Weight decay of AdamW.
        ema_decay: Decay of the moving average of the weights, per step.
        widths: Channels at 1/2, 1/4, ... of the resolution.
        dimension: Width of the features and of the shared space.
        image_size: Side of the images, pixels.
        validation_fraction: Share of the images of each domain that is held out, in (0, 1).
        split: How the held-out images are chosen, a name in `splits.SPLITS`.
        validate_every: Images between two validations.
        save_every: Images between two writes of the state file.
        seed: Seed of everything random.

    Raises:
        ValueError: for a value out of range, also for the network.
        ValueError: for unknown or too few domains, or a `state` of another suffix.
    """

    data: dict[str, str]
    state: str
    images: int = 400_000
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    ema_decay: float = 0.998
    widths: tuple[int, ...] = (48, 96, 192)
    dimension: int = 64
    image_size: int = 32
    validation_fraction: float = 0.1
    split: str = "per_label"
    validate_every: int = 50_000
    save_every: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.data) - set(SUBJECTS))
        if unknown or len(self.data) < 2:
            given = ", ".join(self.data) or "none"
            raise ValueError(f"data must name at least two of the domains {', '.join(SUBJECTS)}, got {given}")

        for name in ("images", "batch_size", "dimension", "image_size", "validate_every", "save_every"):
            check_count(name, getattr(self, name), 1)
        check_seed("seed", self.seed)
        check_number("learning_rate", self.learning_rate, 0, 1, above=True)
        check_number("weight_decay", self.weight_decay, 0)

        if check_number("ema_decay", self.ema_decay, 0, 1) == 1:
            raise ValueError(f"ema_decay must be less than 1, got {self.ema_decay}")
        if check_number("validation_fraction", self.validation_fraction, 0, 1, above=True) == 1:
            raise ValueError(f"validation_fraction must be less than 1, got {self.validation_fraction}")

        check_choice("split", self.split, tuple(SPLITS))

        # Refuses widths that do not fit the image size.
        EncoderConfig(tuple(self.data), self.image_size, tuple(self.widths), self.dimension, word_dimension=1)

        if Path(self.state).suffix != ".safetensors":
            raise ValueError(f"state must be a .safetensors file, got {self.state!r}")

    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return -(-self.images // self.batch_size)
