"""The settings of a training run of the denoiser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ..diffusion.checks import check_choice, check_count, check_guidance, check_number, check_seed
from ..diffusion.schedule import NoiseSchedule
from ..io.splits import SPLITS
from .unet import UNetConfig

FEWEST_TIMESTEPS = 10


@dataclass(frozen=True)
class TrainingConfig:
    """One training run; every field is a key of `conf/task/model.yaml`.

    Attributes:
        data: Domain name -> folder or array file of its images, in the order of the class ids.
        state: Resumable state file of the run (`.safetensors`).
        start_from: Checkpoint with the first weights of a new run, e.g. to fine-tune it; None: random weights.
        images: Images of the whole run.
        batch_size: Images per optimiser step, of all processes together.
        learning_rate: Peak learning rate of Adam.
        warmup_images: Images over which the learning rate rises linearly from 0.
        decay_images: Images over which it falls linearly to 0 at the end.
        max_grad_norm: Global gradient norm above which gradients are scaled down.
        ema_decay: Decay of the moving average of the weights, per step; ramped up at the start.
        prediction_type: `v_prediction` or `epsilon`.
        log_snr_mean: Mean of the normally distributed log-SNR lambda of the training timesteps (Karras et al., 2022).
        log_snr_std: Standard deviation of lambda.
        uniform_fraction: Share of timesteps drawn uniformly from [0, T - 1] instead.
        min_snr_gamma: Cap on the SNR in the loss weight (Hang et al., 2023); None: all timesteps have the same weight.
        drop_label: Probability that only the domain of an image is shown.
        drop_all: Probability that neither domain nor label is shown.
        guidance_scale: Default weight of classifier-free guidance, stored with the model; 1 is no guidance.
        validation_fraction: Share of the images of each domain that is held out.
        split: How the held-out images are chosen, a name in `splits.SPLITS`.
        validation_images: Number of held-out images used for the validation loss.
        validate_every: Images between two validations.
        save_every: Images between two writes of the state file.
        seed: Seed of everything random.
        noise_schedule: Constructor arguments of `NoiseSchedule`; 10 timesteps or more.
        architecture: Arguments of `UNetConfig` without `num_classes`, which depends on the data.

    Raises:
        ValueError: for a value out of range, also in the noise schedule and the architecture, if `data` is empty, or if
            `state` has another suffix.
    """

    data: dict[str, str]
    state: str
    start_from: str | None = None
    images: int = 1_000_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_images: int = 20_000
    decay_images: int = 300_000
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    prediction_type: str = "v_prediction"
    log_snr_mean: float = 0.6
    log_snr_std: float = 1.3
    uniform_fraction: float = 0.2
    min_snr_gamma: float | None = None
    drop_label: float = 0.4
    drop_all: float = 0.1
    guidance_scale: float = 2.0
    validation_fraction: float = 0.1
    split: str = "per_label"
    validation_images: int = 512
    validate_every: int = 50_000
    save_every: int = 10_000
    seed: int = 0
    noise_schedule: Annotated[dict[str, Any], NoiseSchedule] = field(default_factory=dict)
    architecture: Annotated[dict[str, Any], UNetConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("images", "batch_size", "validation_images", "validate_every", "save_every"):
            check_count(name, getattr(self, name), 1)
        check_seed("seed", self.seed)
        for name in ("warmup_images", "decay_images"):
            check_count(name, getattr(self, name), 0)

        check_number("learning_rate", self.learning_rate, 0, 1, above=True)
        for name in ("max_grad_norm", "log_snr_std"):
            check_number(name, getattr(self, name), 0, above=True)
        check_number("log_snr_mean", self.log_snr_mean)
        for name in ("uniform_fraction", "drop_label", "drop_all"):
            check_number(name, getattr(self, name), 0, 1)

        if self.drop_label + self.drop_all > 1:
            raise ValueError(f"drop_label + drop_all must not exceed 1, got {self.drop_label + self.drop_all}")

        for name in ("ema_decay", "validation_fraction"):
            if check_number(name, getattr(self, name), 0, 1) == 1:
                raise ValueError(f"{name} must be less than 1, got {getattr(self, name)}")

        if self.min_snr_gamma is not None:
            check_number("min_snr_gamma", self.min_snr_gamma, 0, above=True)

        check_guidance(self.guidance_scale)
        check_choice("prediction_type", self.prediction_type, ("v_prediction", "epsilon"))
        check_choice("split", self.split, tuple(SPLITS))

        timesteps = NoiseSchedule(**self.noise_schedule).num_train_timesteps
        check_count("noise_schedule.num_train_timesteps", timesteps, FEWEST_TIMESTEPS)
        if "num_classes" in self.architecture:
            raise ValueError("architecture.num_classes is for the data to decide; leave it out")
        UNetConfig(**self.architecture)

        if Path(self.state).suffix != ".safetensors":
            raise ValueError(f"state must be a .safetensors file, got {self.state!r}")
        if not self.data:
            raise ValueError("data names no domain; give at least one, e.g. task.data.portraits=/path/to/images")

    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return -(-self.images // self.batch_size)
