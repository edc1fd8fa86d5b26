"""The clean prediction at the first timestep, which hardly depends on the noise: known instead of evaluated.

At T - 1 a state is noise with next to nothing of an image in it, so that the best prediction is the mean image of the
condition, and a little of the noise's lowest frequencies. Both are measured once, and the first evaluation of every
image is saved. (Known as the analytical first step, AFS: Dockhorn et al., 2022, "GENIE".)
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from .arrays import at_least_float32
from .checks import check_count
from .evaluation import Denoised, Model, Waiting, interpreted
from .guided_model import GuidedModel
from .limits import Limit
from .node import Node, node_at
from .rng import image_keys, normal
from .schedule import NoiseSchedule

NOISES = 64  # that a first prediction is measured from in calibration
SHARED = 16  # that it is measured from in a run, for a condition that was not calibrated
FREQUENCIES = 4  # of the noise, along each axis, that the prediction follows
SEED = 64_000  # of the noises
RIDGE = 0.5  # squared noises that a gain is shrunk by


@dataclass(frozen=True, eq=False)
class FirstPrediction:
    """A prediction that is linear in the lowest frequencies of the noise, each with a gain of its own.

    Args:
        mean: (H, W, C) the clean prediction of no noise.
        gains: (K, K, 2) of the frequencies of the cosine transform: of the mean of the channels, and of what the
            channels have beside it.
        condition: Class ids that it was measured with; () for none.

    Raises:
        ValueError: for arrays of other shapes, or that are not finite.
    """

    mean: np.ndarray
    gains: np.ndarray
    condition: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.mean.ndim != 3 or self.gains.ndim != 3 or self.gains.shape != (*self.gains.shape[:1] * 2, 2):
            raise ValueError(
                "a first prediction needs a mean of shape (H, W, C) and gains of shape (K, K, 2), got "
                f"{self.mean.shape} and {self.gains.shape}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.gains).all()):
            raise ValueError("a first prediction must be finite")

    @classmethod
    def fit(cls, noise: np.ndarray, predictions: np.ndarray, condition: Sequence[int] = ()) -> FirstPrediction:
        """The mean, and the gains by least squares.

        Args:
            noise: (N, H, W, C) standard normal noises.
            predictions: (N, H, W, C) what the model predicts from them at T - 1.
            condition: Class ids of all of them.
        """
        mean_noise, mean = noise.mean(axis=0, dtype=np.float64), predictions.mean(axis=0, dtype=np.float64)
        size = min(FREQUENCIES, *noise.shape[1:3])
        parts = zip(_parts(noise - mean_noise, size), _parts(predictions - mean, size), strict=True)

        gains = [(z * d).sum(axis=(0, 3)) / ((z * z).sum(axis=(0, 3)) + RIDGE) for z, d in parts]
        found = cls(np.zeros_like(mean), np.stack(gains, axis=-1))
        found = cls(mean - found.predict(mean_noise[None])[0], found.gains, tuple(condition))
        return first_prediction_from(found.content())  # as precise as a file keeps it

    def predict(self, noise: np.ndarray) -> np.ndarray:
        """(B, H, W, C) noises -> (B, H, W, C) float64 clean predictions."""
        rows, columns = _cosines(self.mean.shape[0], len(self.gains)), _cosines(self.mean.shape[1], len(self.gains))
        common, beside = _parts(noise, len(self.gains))
        kept = self.gains[..., :1] * common + self.gains[..., 1:] * beside
        return np.asarray(self.mean + np.einsum("kh,lw,bklc->bhwc", rows, columns, kept, optimize=True))

    def __call__(self, noise: mx.array) -> mx.array:
        """(B, H, W, C) noises -> (B, H, W, C) float32 clean predictions.

        Raises:
            ValueError: for noises of another shape.
        """
        if noise.shape[1:] != self.mean.shape:
            raise ValueError(f"the first prediction is for states of shape {self.mean.shape}, got {noise.shape[1:]}")
        return mx.array(self.predict(np.array(at_least_float32(noise))).astype(np.float32))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FirstPrediction) and self.content() == other.content()

    def __hash__(self) -> int:
        return hash((self.condition, self.content()["mean"]))

    def content(self) -> dict[str, Any]:
        """What `first_prediction_from` makes one of; the mean as text, in half precision."""
        half = self.mean.astype("<f2")
        return {
            "condition": list(self.condition),
            "gains": [[[float(f"{gain:.4g}") for gain in pair] for pair in row] for row in self.gains],
            "shape": list(self.mean.shape),
            "mean": base64.b64encode(half.tobytes()).decode("ascii"),
        }


def first_prediction_from(content: Mapping[str, Any]) -> FirstPrediction:
    """A first prediction from its `content`, whether or not it has been JSON since.

    Raises:
        KeyError, TypeError, ValueError: if it is none.
    """
    half = np.frombuffer(base64.b64decode(content["mean"], validate=True), "<f2")
    mean = half.reshape([int(side) for side in content["shape"]]).astype(np.float64)
    return FirstPrediction(mean, np.array(content["gains"], np.float64), tuple(map(int, content["condition"])))


def first_prediction(
    model: GuidedModel, shape: tuple[int, ...], noises: int = NOISES, batch_size: int = 16
) -> FirstPrediction:
    """Measure what a model predicts at T - 1, from fixed noises; it counts as so many evaluations.

    These noises belong to nobody else, so that weights are fitted to predictions from noises that are unseen here.

    Args:
        model: The model, with one condition for all images.
        shape: (H, W, C) of its states.
        noises: How many, >= 2.
        batch_size: Images per evaluation, >= 1.

    Raises:
        ValueError: for images that differ in their condition, or a number out of range.
    """
    check_count("noises", noises, 2)
    check_count("batch_size", batch_size, 1)
    condition = condition_of(model)
    if condition is None:
        raise ValueError("a first prediction is measured with one condition for all images, and these differ")

    one = model if model.condition is None else model.with_condition(model.condition[:1])
    noise, predictions = normal(image_keys(SEED, range(noises)), shape), list[np.ndarray]()
    for first in range(0, noises, batch_size):
        some = noise[first : first + batch_size]
        predictions.append(np.array(one.denoise(some, first_node(one.process), np.arange(len(some))).x0))
    return FirstPrediction.fit(np.array(noise), np.concatenate(predictions), condition)


def condition_of(model: GuidedModel) -> tuple[int, ...] | None:
    """The class ids that all images of a run share, () without any; None where they may differ, or are no ids."""
    found = set() if model.by_share else set(conditions_in(model) or ())
    return found.pop() if len(found) == 1 else None


def conditions_in(model: GuidedModel) -> list[tuple[int, ...]] | None:
    """The class ids of each image of a run, one for all where they share them, () without any; None for no ids."""
    if model.mixture is not None:
        return None
    if model.condition is None:
        return [()]
    if not mx.issubdtype(model.condition.dtype, mx.integer):
        return None
    return [tuple(int(i) for i in row.ravel()) for row in np.array(model.condition)]


def first_node(process: NoiseSchedule) -> Node:
    """Where a run begins at pure noise: T - 1."""
    return node_at(process, process.num_train_timesteps - 1)


class _Evaluated(Model, Protocol):
    @property
    def process(self) -> NoiseSchedule: ...

    @property
    def limit(self) -> Limit: ...


@dataclass(frozen=True, eq=False)
class KnownFirst:
    """A model whose prediction at T - 1 is known: the network is evaluated everywhere else.

    Args:
        model: The model.
        first: Its prediction at T - 1; several where images differ in their condition, that of image i at i.
    """

    model: _Evaluated
    first: FirstPrediction | Sequence[FirstPrediction]

    @property
    def process(self) -> NoiseSchedule:
        """The noise process of the model."""
        return self.model.process

    def known(self, node: Node) -> bool:
        """Whether the prediction at a node is known."""
        return node.t == self.process.num_train_timesteps - 1

    def denoise_all(self, waiting: Sequence[Waiting]) -> list[Denoised]:
        """See `GuidedModel.denoise_all`."""
        asked = [some for some in waiting if not self.known(some.node)]
        answers = iter(self.model.denoise_all(asked) if asked else [])
        return [self._first(some) if self.known(some.node) else next(answers) for some in waiting]

    def _first(self, waiting: Waiting) -> Denoised:
        x_t = at_least_float32(waiting.x_t)
        return interpreted(self._prediction(x_t, waiting.rows), x_t, waiting.node, "sample", self.model.limit)

    def _prediction(self, x_t: mx.array, rows: np.ndarray) -> mx.array:
        if isinstance(self.first, FirstPrediction):
            return self.first(x_t)
        return mx.concatenate([self.first[row](x_t[i : i + 1]) for i, row in enumerate(rows)])


def _cosines(length: int, count: int) -> np.ndarray:
    """(count, length) the first vectors of the orthonormal cosine transform (DCT-II)."""
    k, n = np.arange(count)[:, None], np.arange(length)
    basis = np.cos(np.pi * k * (2 * n + 1) / (2 * length)) * np.sqrt(2 / length)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis)


def _parts(images: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(B, H, W, C) -> (B, K, K, 1) and (B, K, K, C), lowest frequencies of the channels' mean, and of the rest."""
    rows, columns = _cosines(images.shape[1], count), _cosines(images.shape[2], count)
    low = np.einsum("kh,lw,bhwc->bklc", rows, columns, images, optimize=True)
    common = low.mean(axis=-1, keepdims=True)
    return common, low - common
