"""The examples of a training step: noisy images, timesteps, classes and targets.

Everything random (order and flips of the images, timesteps, noise, dropped classes) is a pure function of the seed and
the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..diffusion.schedule import NoiseSchedule
from ..io.pixels import to_float
from .batch_order import BatchOrder, chosen
from .corpus import Corpus, TimestepDistribution
from .training_config import TrainingConfig
from .unet import SimpleUNet, UNetConfig

VALIDATION_BATCH = 64


class Examples(NamedTuple):
    """A batch of examples.

    Attributes:
        noisy: (B, H, W, C) noisy images.
        t: (B,) timesteps.
        classes: (B, K) class ids.
        target: (B, H, W, C) correct predictions.
        weight: (B,) weights of the loss.
    """

    noisy: mx.array
    t: mx.array
    classes: mx.array
    target: mx.array
    weight: mx.array


class ExampleSource:
    """Draws the examples of every step of a run.

    Args:
        config: Settings of the run.
        schedule: Noise schedule.
        corpus: Images and classes.
        rank: Index of this process; each process draws its own share of a batch.
        processes: Number of processes.

    Raises:
        Unusable: if the noise schedule has no timesteps at the log-SNR of the configuration.
    """

    def __init__(
        self, config: TrainingConfig, schedule: NoiseSchedule, corpus: Corpus, rank: int = 0, processes: int = 1
    ):
        self.config, self.schedule, self.corpus = config, schedule, corpus
        self._share = slice(rank, config.batch_size, processes)

        architecture = UNetConfig(**config.architecture)
        self._image_shape = (architecture.image_size, architecture.image_size, architecture.in_channels)

        self._order = BatchOrder([len(images) for images, _ in corpus.train], config.batch_size, config.seed)
        self._timesteps = TimestepDistribution(
            schedule, config.log_snr_mean, config.log_snr_std, config.uniform_fraction
        )

    def batch(self, step: int) -> Examples:
        """This process's share of the examples of a step."""
        return self.examples(*self.draw(step))

    def draw(self, step: int) -> tuple[mx.array, mx.array, np.ndarray, mx.array]:
        """Draw x0, noise, timesteps and class ids of this process's share of a step."""
        c, B = self.config, self.config.batch_size
        groups, rows, mirror = self._order(step)
        rng = np.random.default_rng([c.seed, 2, step])

        # One timestep in each of B equal strata of the distribution.
        t = self._timesteps(rng.permutation((np.arange(B) + rng.random()) / B))
        hidden = rng.random(B)
        noise = mx.random.normal((B, *self._image_shape), key=mx.random.split(mx.random.key(c.seed), 2)[1] ^ step)

        share = self._share
        images, shown = chosen(self.corpus.train, groups[share], rows[share], mirror[share])

        # Dropped classes are what guidance needs: the model without a label, and without label and domain.
        shown[hidden[share] < c.drop_all + c.drop_label, 1] = 0
        shown[hidden[share] < c.drop_all] = 0

        return mx.array(to_float(images)), noise[share], t[share], mx.array(shown)

    def examples(self, x0: mx.array, noise: mx.array, t: np.ndarray, classes: mx.array) -> Examples:
        """Noisy images, targets and weights of the loss, from the results of `draw`."""
        schedule, v = self.schedule, self.config.prediction_type == "v_prediction"
        target = schedule.velocity(x0, noise, t) if v else noise

        if (gamma := self.config.min_snr_gamma) is None:
            weight = np.ones(len(t))
        else:
            # min(SNR, gamma) weighs errors of x0 (Hang et al., 2023); the divisor turns it into a weight of the target.
            snr = np.exp(2 * schedule.log_snr(t))
            weight = np.minimum(snr, gamma) / (snr + 1 if v else snr)

        noisy = schedule.add_noise(x0, noise, t)
        return Examples(noisy, mx.array(t.astype(np.float32)), classes, target, mx.array(weight.astype(np.float32)))

    def validation(self) -> Iterator[Examples]:
        """Batches of held-out examples; images, timesteps and noise are the same in every call."""
        per_domain = max(1, self.config.validation_images // len(self.corpus.domains))
        pairs = [(images[:per_domain], classes[:per_domain]) for images, classes in self.corpus.validation]
        x0 = to_float(np.concatenate([images for images, _ in pairs]))
        classes = np.concatenate([ids for _, ids in pairs])

        t = self._timesteps((np.arange(len(x0)) + 0.5) / len(x0)) if len(x0) else np.zeros(0)
        t = np.random.default_rng(0).permutation(t)
        noise = mx.random.normal(x0.shape, key=mx.random.key(0))

        batches = math.ceil(len(x0) / VALIDATION_BATCH)
        for rows in np.array_split(np.arange(len(x0)), batches) if batches else []:
            yield self.examples(mx.array(x0[rows]), noise[mx.array(rows)], t[rows], mx.array(classes[rows]))


def losses(model: SimpleUNet, examples: Examples) -> mx.array:
    """(B,) weighted mean squared errors of the predictions."""
    prediction = model(examples.noisy, examples.t, examples.classes)
    return examples.weight * (prediction - examples.target).square().mean(axis=(1, 2, 3))
