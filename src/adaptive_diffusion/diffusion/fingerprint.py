"""A fingerprint of a network: a few numbers of one prediction, for models that no hash of weights tells apart."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from .arrays import at_least_float32
from .guided_model import GuidedModel, predicted
from .rng import image_keys, normal

PATTERNS = 8  # fixed ones, that the prediction is projected on
SEED = 65_000  # of the noise and the patterns
TOLERANCE = 0.02  # of the prediction's root mean square: rounding in half precision is less, another training is more


@dataclass(frozen=True)
class Fingerprint:
    """What a network predicts of a fixed noise in the middle of the timesteps, unguided, with the null condition.

    Attributes:
        numbers: The root mean square of the prediction, and its mean product with each of some patterns of noise, times
            the root of its size.
        shape: (H, W, C) of the states.
        conditioned: Whether the network is given conditions, among which zeros are the null condition.
    """

    numbers: tuple[float, ...]
    shape: tuple[int, ...]
    conditioned: bool

    @classmethod
    def of(cls, model: GuidedModel, shape: tuple[int, ...]) -> Fingerprint:
        """That of a model's network; takes one evaluation, which the model's cost does not count.

        Args:
            model: The model.
            shape: (H, W, C) of its states.
        """
        noise = normal(image_keys(SEED, range(1 + PATTERNS)), shape)
        null = None if model.condition is None else mx.zeros_like(model.condition[:1])
        middle = mx.full((1,), float(model.process.num_train_timesteps // 2))

        prediction = np.array(at_least_float32(predicted(model.network, noise[:1], middle, null)), np.float64).ravel()
        products = np.array(noise[1:], np.float64).reshape(PATTERNS, -1) @ prediction / np.sqrt(prediction.size)
        numbers = np.append(np.sqrt(np.mean(prediction**2)), products)
        return cls(tuple(float(f"{number:.6g}") for number in numbers), tuple(shape), null is not None)

    def is_of(self, model: GuidedModel, shape: tuple[int, ...]) -> bool | None:
        """Whether a model predicts alike; None where that cannot be told, as it has other shapes or no conditions.

        Args:
            model: The model.
            shape: (H, W, C) of its states.
        """
        if (tuple(shape), model.condition is not None) != (self.shape, self.conditioned):
            return None
        found = Fingerprint.of(model, shape)
        difference = np.abs(np.subtract(found.numbers, self.numbers)).max()
        return bool(difference <= TOLERANCE * max(self.numbers[0], found.numbers[0]))
