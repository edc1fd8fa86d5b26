"""The settings of a training run of the denoiser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ..diffusion.checks import check_choice, check_count, check_guidance, check_number
from ..diffusion.schedule import NoiseSchedule
from .resumable import TrainingSettings
from .unet import UNetConfig

FEWEST_TIMESTEPS = 10


@dataclass(frozen=True)
class TrainingConfig(TrainingSettings):
    """One training run; every field, also of `TrainingSettings`, is a key of `conf/task/model.yaml`.

    Attributes:
        start_from: Checkpoint with the first weights of a new run, e.g. to fine-tune it; None: random weights.
        warmup_images: Images over which the learning rate of Adam rises linearly from 0.
        decay_images: Images over which it falls linearly to 0 at the end.
        max_grad_norm: Global gradient norm above which gradients are scaled down.
        prediction_type: `v_prediction` or `epsilon`.
        log_snr_mean: Mean of the normally distributed log-SNR lambda of the training timesteps (Karras et al., 2022).
        log_snr_std: Standard deviation of lambda.
        uniform_fraction: Share of timesteps drawn uniformly from [0, T - 1] instead.
        min_snr_gamma: Cap on the SNR in the loss weight (Hang et al., 2023); None: all timesteps have the same weight.
        drop_label: Probability that only the domain of an image is shown.
        drop_all: Probability that neither domain nor label is shown.
        guidance_scale: Default weight of classifier-free guidance, stored with the model; 1 is no guidance.
        validation_images: Number of held-out images used for the validation loss.
        noise_schedule: Constructor arguments of `NoiseSchedule`; 10 timesteps or more.
        architecture: Arguments of `UNetConfig` without `num_classes`, which depends on the data.

    Raises:
        ValueError: for a value out of range, also in the noise schedule and the architecture.
    """

    start_from: str | None = None
    images: int = 1_000_000
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
    validation_images: int = 512
    noise_schedule: Annotated[dict[str, Any], NoiseSchedule] = field(default_factory=dict)
    architecture: Annotated[dict[str, Any], UNetConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("validation_images", self.validation_images, 1)
        for name in ("warmup_images", "decay_images"):
            check_count(name, getattr(self, name), 0)

        for name in ("max_grad_norm", "log_snr_std"):
            check_number(name, getattr(self, name), 0, above=True)
        check_number("log_snr_mean", self.log_snr_mean)
        for name in ("uniform_fraction", "drop_label", "drop_all"):
            check_number(name, getattr(self, name), 0, 1)

        if self.drop_label + self.drop_all > 1:
            raise ValueError(f"drop_label + drop_all must not exceed 1, got {self.drop_label + self.drop_all}")

        if self.min_snr_gamma is not None:
            check_number("min_snr_gamma", self.min_snr_gamma, 0, above=True)

        check_guidance(self.guidance_scale)
        check_choice("prediction_type", self.prediction_type, ("v_prediction", "epsilon"))

        timesteps = NoiseSchedule(**self.noise_schedule).num_train_timesteps
        check_count("noise_schedule.num_train_timesteps", timesteps, FEWEST_TIMESTEPS)
        if "num_classes" in self.architecture:
            raise ValueError("architecture.num_classes is for the data to decide; leave it out")
        UNetConfig(**self.architecture)

    def recipe(self) -> dict[str, Any]:
        """See `TrainingSettings.recipe`; `start_from` as an absolute path."""
        start = None if self.start_from is None else str(Path(self.start_from).absolute())
        decisive = {name: value for name, value in super().recipe().items() if name != "validation_images"}
        return {**decisive, "start_from": start}
