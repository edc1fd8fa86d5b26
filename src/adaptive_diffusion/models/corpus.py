"""What a training step is made from: the images with their class ids, and the timesteps."""

from __future__ import annotations

import math

import numpy as np

from ..diffusion.schedule import NoiseSchedule
from ..errors import UserError
from ..io.pictures import PictureSet, load_pictures
from .training_config import TrainingConfig
from .unet import UNetConfig


class Corpus:
    """The images of all domains and their class ids (domain from 1, label from 1; 0 is the null class)."""

    def __init__(self, config: TrainingConfig):
        a = UNetConfig(**config.architecture)
        sets = {domain: load_pictures(path, a.image_size, a.in_channels) for domain, path in config.data.items()}
        self.domains = tuple(sets)
        self.labels = {domain: s.label_names for domain, s in sets.items()}

        parts = [s.split(config.validation_fraction, config.split, config.seed) for s in sets.values()]
        for domain, (train, held) in zip(sets, parts, strict=True):
            if not len(train):
                raise UserError(
                    f"{domain}: validation_fraction={config.validation_fraction} keeps all {len(held)} pictures back"
                )

        offsets = np.cumsum([0] + [len(s.label_names) for s in sets.values()])
        self.num_classes = (len(sets), int(offsets[-1]))
        self.train = [self._with_classes(train, d, offsets) for d, (train, _) in enumerate(parts)]
        self.validation = [self._with_classes(held, d, offsets) for d, (_, held) in enumerate(parts)]

    @staticmethod
    def _with_classes(part: PictureSet, domain: int, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = np.where(part.labels < 0, 0, part.labels + 1 + offsets[domain])
        return part.images, np.stack([np.full(len(labels), domain + 1), labels], axis=1).astype(np.int32)


class TimestepDistribution:
    """Draws training timesteps: lambda ~ N(mean, std^2) mixed with a uniform share, by inverse transform."""

    def __init__(self, schedule: NoiseSchedule, mean: float, std: float, uniform_fraction: float):
        self._t = np.arange(schedule.num_train_timesteps, dtype=np.float64)
        lambdas = schedule.log_snr(self._t)

        normal = 0.5 * np.vectorize(math.erf)((mean - lambdas) / (std * math.sqrt(2)))  # rises with t
        if not normal[-1] > normal[0]:
            raise UserError(
                f"log_snr_mean={mean} with log_snr_std={std} lies beyond all timesteps of the noise schedule"
            )

        normal = (normal - normal[0]) / (normal[-1] - normal[0])
        self._cdf = (1 - uniform_fraction) * normal + uniform_fraction * self._t / self._t[-1]
        self._cdf += 1e-9 * self._t  # strictly increasing, so that it can be inverted

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """Real-valued timesteps in [0, T - 1] of uniform numbers `u` in [0, 1)."""
        return np.interp(u * self._cdf[-1], self._cdf, self._t)
