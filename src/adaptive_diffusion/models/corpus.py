"""The data of a training run: images with class ids, and the distribution of timesteps."""

from __future__ import annotations

import math

import numpy as np

from ..diffusion.conditions import check_label_names
from ..diffusion.schedule import NoiseSchedule
from ..errors import Unusable
from ..io.pictures import PictureSet, load_pictures
from .training_config import TrainingConfig
from .unet import UNetConfig


class Corpus:
    """The images of all domains with their class ids, in training images and held-out images.

    Attributes:
        domains: Names of the domains.
        labels: Labels of each domain.
        num_classes: Number of domains, and of all labels.
        train: Per domain, (N, H, W, C) uint8 images and their (N, 2) class ids (domain, label). Ids begin at 1; 0 is
            the null class.
        validation: The same of the held-out images.
        label_counts: Of each domain, how many training images each of its labels has.

    Args:
        config: Settings of the run.

    Raises:
        Unusable: if the images cannot be read, a label is named `none` or `null`, or all images of a domain would
            be held out.
    """

    def __init__(self, config: TrainingConfig):
        net = UNetConfig(**config.architecture)
        sets = {domain: load_pictures(path, net.image_size, net.in_channels) for domain, path in config.data.items()}
        self.domains = tuple(sets)
        self.labels = {domain: s.label_names for domain, s in sets.items()}
        check_label_names(self.labels)

        splits = [s.split(config.validation_fraction, config.split, config.seed) for s in sets.values()]

        offsets = np.cumsum([0] + [len(s.label_names) for s in sets.values()])
        self.num_classes = (len(sets), int(offsets[-1]))
        self.train = [self._with_classes(train, d, offsets) for d, (train, _) in enumerate(splits)]
        self.label_counts = {
            domain: np.bincount(train.labels[train.labels >= 0], minlength=len(self.labels[domain])).tolist()
            for domain, (train, _) in zip(sets, splits, strict=True)
        }
        self.validation = [self._with_classes(held, d, offsets) for d, (_, held) in enumerate(splits)]

    @staticmethod
    def _with_classes(images: PictureSet, domain: int, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and class ids; an image without a label has label id 0."""
        labels = np.where(images.labels < 0, 0, images.labels + 1 + offsets[domain])
        return images.images, np.stack([np.full(len(labels), domain + 1), labels], axis=1).astype(np.int32)


class TimestepDistribution:
    """Distribution of training timesteps: log-SNR lambda ~ N(mean, std^2), mixed with uniform timesteps.

    Args:
        schedule: Noise schedule.
        mean: Mean of lambda.
        std: Standard deviation of lambda.
        uniform_fraction: Share of uniform timesteps, in [0, 1].

    Raises:
        Unusable: if the normal distribution lies beyond all timesteps.
    """

    def __init__(self, schedule: NoiseSchedule, mean: float, std: float, uniform_fraction: float):
        self._t = np.arange(schedule.num_train_timesteps, dtype=np.float64)
        lambdas = schedule.log_snr(self._t)

        # Cumulative distribution of lambda, as a rising function of t: lambda falls with t.
        normal = 0.5 * np.vectorize(math.erf)((mean - lambdas) / (std * math.sqrt(2)))
        if not normal[-1] > normal[0]:
            raise Unusable(
                f"log_snr_mean={mean} with log_snr_std={std} lies beyond all timesteps of the noise schedule"
            )

        normal = (normal - normal[0]) / (normal[-1] - normal[0])
        self._cdf = (1 - uniform_fraction) * normal + uniform_fraction * self._t / self._t[-1]
        self._cdf += 1e-9 * self._t  # strictly increasing, hence invertible

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """Real-valued timesteps in [0, T - 1] from uniform numbers `u` in [0, 1), by inverse transform."""
        return np.interp(u * self._cdf[-1], self._cdf, self._t)
