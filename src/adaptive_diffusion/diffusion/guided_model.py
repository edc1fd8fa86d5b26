"""GuidedModel: what is drawn. All facts of a model are said here once; grids and solvers see nodes and clean images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..errors import Unusable
from ..types import ChecksConditions, Denoiser, PictureModel
from .autoguidance import Autoguidance
from .checks import check_choice, check_guidance, check_state_shape
from .compiled import compiled
from .conditions import Conditions, Mixture, Same
from .evaluation import Cost, Denoised, Waiting, interpreted
from .facts import ModelFacts
from .guidance import Guidance, checked_guidance, effective_guidance, identity_of, in_effect, weaker_in
from .guided_prediction import guided
from .limits import Clipped, Limit, unlimited
from .node import Node, node_at
from .rng import image_keys, normal
from .schedule import PREDICTION_TYPES, NoiseSchedule


@dataclass(frozen=True, eq=False)
class GuidedModel:
    """A network with its noise process, its guidance and its conditions: all that a run needs to know of a model.

    Guidance is null + weight * (conditional - null), both predictions from one doubled batch (Ho & Salimans, 2022).
    Only images whose weight is neither 0 nor 1 are doubled, and none without a condition. `Autoguidance` has a weaker
    network in the place of the null condition.

    Args:
        network: Predicts eps, v or x0; a condition of all zeros is its null condition.
        process: The noise process that the network was trained with.
        prediction_type: What the network predicts: `epsilon`, `v_prediction` or `sample` (x0).
        limit: Keeps clean predictions in the range of the data.
        guidance_scale: Weight of classifier-free guidance, in [0, 1000]; 1 is none. Or `Guidance`, which says the
            weight at each noise level; `Constant` becomes its number. With a network that reads, less than 1 is none.
        condition: (N, ...) what each image of the run is conditioned on, (1, ...) the same for all, or None.
        state_shape: (H, W, C) of a state, an image or its latents; None where the caller knows.
        identity: What decides the predictions of the network, e.g. its content hash, without the guidance; "" where it
            is not known.
        decode: Makes images of clean states, (B, H, W, C) -> (B, H', W', 3); None: states are images.
        domain: Name of what is drawn.
        domains: Names that a policy tells apart, among them `domain`; () if there is nothing to tell apart.
        mixture: In the place of `condition`, what each image of any seed is conditioned on; `of_images` says which
            images these are, before the model is evaluated.
        by_share: Whether `condition` are rows of a mixture, so that other images of the run may have others.

    Attributes:
        cost: Evaluations and passes so far, of this object and of what `with_condition` and `of_images` make of it.

    Raises:
        ValueError: for a scale out of range, an unknown prediction type, a domain that is not one of the domains, a
            state shape that is none, a condition beside a mixture, class ids that the network does not have, or
            `Autoguidance` by a model that does not fit.
    """

    network: Denoiser
    process: NoiseSchedule = field(default_factory=NoiseSchedule)
    prediction_type: str = "epsilon"
    limit: Limit = field(default_factory=Clipped)
    guidance_scale: float | Guidance = 1.0
    condition: mx.array | None = None
    state_shape: tuple[int, int, int] | None = None
    identity: str = ""
    decode: Callable[[mx.array], mx.array] | None = None
    domain: str = ""
    domains: tuple[str, ...] = ()
    mixture: Mixture | None = None
    by_share: bool = False
    cost: Cost = field(default_factory=Cost, init=False)
    _predict: Denoiser = field(init=False, repr=False)

    def __post_init__(self) -> None:
        scale = effective_guidance(self.network, checked_guidance(self.guidance_scale))
        object.__setattr__(self, "guidance_scale", scale)
        check_choice("prediction_type", self.prediction_type, PREDICTION_TYPES)
        if self.domains and self.domain not in self.domains:
            raise ValueError(f"the model has no domain {self.domain!r}; it was trained on {', '.join(self.domains)}")

        if self.state_shape is not None:
            object.__setattr__(self, "state_shape", check_state_shape(self.state_shape))
        if self.condition is not None and self.mixture is not None:
            raise ValueError("condition and mixture were both given, which say the same; leave one of them out")

        condition: Any = self.condition
        if condition is not None and not isinstance(condition, mx.array):
            object.__setattr__(self, "condition", condition := mx.array(condition))
        if condition is not None and isinstance(self.network, ChecksConditions):
            self.network.check_condition(condition)

        if isinstance(scale, Autoguidance):
            shape = self.state_shape or getattr(self.network, "state_shape", None)
            scale.check_fits(
                self.network,
                prediction_type=self.prediction_type,
                noise_schedule=self.process.config,
                state_shape=shape and tuple(shape),
            )

        network = compiled(self.network) if isinstance(self.network, nn.Module) else self.network
        object.__setattr__(self, "_predict", partial(predicted, network))

    @classmethod
    def from_model(
        cls,
        model: PictureModel,
        conditions: Conditions | Sequence[int] = (),
        guidance_scale: float | Guidance | None = None,
        *,
        domain: str = "",
        **changes: Any,
    ) -> Self:
        """A model that says how it was trained.

        Args:
            model: The model.
            conditions: What images are conditioned on, see `conditions_of`; or class ids of all of them, see
                `PictureModel.condition`, () for an unconditional model.
            guidance_scale: Weight of classifier-free guidance, >= 0, or `Guidance`; None: what the model recommends.
            domain: Name of what is drawn.
            **changes: Other arguments of this class, instead of what the model says.

        Raises:
            ValueError: for a value out of range, or a model that does not say what it predicts.
        """
        known = ModelFacts.of(model)
        if known.prediction_type is None and "prediction_type" not in changes:
            raise ValueError("the model does not say what it predicts; give prediction_type")

        given = Same(tuple(conditions)) if isinstance(conditions, Sequence) else conditions
        facts: dict[str, Any] = {
            "process": known.process,
            "prediction_type": known.prediction_type,
            "limit": known.limit,
            "guidance_scale": known.guidance(guidance_scale),
            "condition": None if isinstance(given, Mixture) else given.rows(0, [0]),
            "mixture": given if isinstance(given, Mixture) else None,
            "state_shape": model.state_shape,
            "identity": model.identity,
            "decode": None if known.bounded else model.decode,
            "domain": domain,
            "domains": tuple(model.domains or ()) if domain else (),
        }
        return cls(model, **facts | changes)

    @property
    def guided_identity(self) -> str:
        """What decides the guided predictions: the identity and the guidance; "" without an identity."""
        return self.identity and identity_of(self.identity, self.guidance_scale)

    @property
    def most_passes(self) -> int:
        """Passes through the network that an evaluation of an image takes at most: 2 with guidance, else 1."""
        return self._passes(self.guidance_scale, self.guidance_scale)

    @property
    def guidance_in_effect(self) -> float | Guidance:
        """The guidance that decides anything: 1, none, without a condition or a weaker network."""
        return in_effect(self.guidance_scale, self._is_told)

    @property
    def settings(self) -> dict[str, Any]:
        """What the model decides of a scheduler: the noise process, the prediction type, and clipping."""
        clipping: dict[str, Any] = {"clip_sample": self.limit is not unlimited}
        if isinstance(self.limit, Clipped):
            clipping["clip_sample_range"] = self.limit.bound
        return {**self.process.config, "prediction_type": self.prediction_type, **clipping}

    @property
    def one_hot(self) -> np.ndarray:
        """(len(domains),) float32, 1 at the domain."""
        return np.array([float(name == self.domain) for name in self.domains], np.float32)

    def noise(self, seed: int, count: int) -> mx.array:
        """(count, *state_shape) standard normal noise; image i of a seed has always the same, see also `of_images`.

        Raises:
            ValueError: for a model whose state shape is not known.
        """
        if self.state_shape is None:
            raise ValueError("the model does not say the shape of its states; give state_shape")
        return normal(image_keys(seed, range(count)), self.state_shape)

    def of_images(self, seed: int, count: int) -> Self:
        """The same model with the conditions of the images 0 to `count` - 1 of a seed; see `noise`."""
        if self.mixture is None:
            return self
        return self.with_condition(self.mixture.rows(seed, range(count)), by_share=True)

    def with_condition(self, condition: mx.array | None, by_share: bool | None = None) -> Self:
        """The same model with other conditions; it adds to the same cost.

        Args:
            condition: See the class.
            by_share: See the class; None: as it is.
        """
        by_share = self.by_share if by_share is None else by_share
        other = replace(self, condition=condition, mixture=None, by_share=by_share)
        object.__setattr__(other, "cost", self.cost)
        object.__setattr__(other, "_predict", self._predict)  # compiled once
        return other

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        """The guided prediction, as the network predicts it.

        Args:
            x: (b, H, W, C) noisy images.
            t: (b,) timesteps.
            condition: (b, ...) conditions of these images, or None.
        """
        if not isinstance(self.guidance_scale, Guidance):
            return self._guided(x, t, condition, [self.guidance_scale])
        weights = [self.weight_at(node_at(self.process, s)) for s in np.array(t).tolist()]
        return self._guided(x, t, condition, weights, weaker_in(self.guidance_scale))

    def weight_at(self, node: Node, guidance: Guidance | None = None) -> float:
        """The weight of guidance at a node, of the model's own or of another; 1 is none.

        Raises:
            ValueError: for `Guidance` that says a weight out of range.
        """
        scale = self.guidance_scale if guidance is None else guidance
        return check_guidance(scale.weight_at(node)) if isinstance(scale, Guidance) else scale

    def passes_at(self, node: Node, guidance: Guidance | None = None) -> int:
        """Passes through the network that an evaluation of an image takes at a node: 2 with guidance, else 1."""
        return self._passes(guidance or self.guidance_scale, self.weight_at(node, guidance))

    def _passes(self, guidance: float | Guidance, weight: float | Guidance) -> int:
        unguided = weight == 1 or (weight == 0 and weaker_in(guidance) is None)
        return 1 if unguided or in_effect(guidance, self._is_told) == 1 else 2

    @property
    def _is_told(self) -> bool:
        return self.condition is not None or self.mixture is not None

    def denoise(self, x_t: mx.array, node: Node, rows: np.ndarray) -> Denoised:
        """Evaluate the model at one node.

        Args:
            x_t: (b, H, W, C) noisy images.
            node: Where they are.
            rows: (b,) which images of the run they are: those whose conditions apply.
        """
        return self.denoise_all([Waiting(x_t, node, rows)])[0]

    def denoise_all(self, waiting: Sequence[Waiting]) -> list[Denoised]:
        """Evaluate the model once for images at several nodes; an image does not depend on the others.

        Args:
            waiting: At least one; their images have the same shape.
        """
        weaker = [weaker_in(some.guidance or self.guidance_scale) for some in waiting]
        if any(network is not weaker[0] for network in weaker):
            return [self.denoise_all([some])[0] for some in waiting]

        x, t, rows = _together(waiting)
        sizes = [len(some.rows) for some in waiting]
        weights = np.repeat([self.weight_at(some.node, some.guidance) for some in waiting], sizes).tolist()
        prediction = self._guided(x, t, self._conditions(rows), weights, weaker[0])

        parts = [prediction] if len(waiting) == 1 else mx.split(prediction, np.cumsum(sizes)[:-1].tolist())
        return [
            interpreted(part, some.x_t, some.node, self.prediction_type, self.limit)
            for part, some in zip(parts, waiting, strict=True)
        ]

    def images(self, states: np.ndarray) -> np.ndarray:
        """(B, H, W, C) clean states -> (B, H', W', C) images in [-1, 1]."""
        decoded = states if self.decode is None else np.array(self.decode(mx.array(states)))
        return np.clip(decoded, -1, 1)

    def _guided(
        self,
        x: mx.array,
        t: mx.array,
        condition: mx.array | None,
        weights: list[float],
        weaker: Denoiser | None = None,
    ) -> mx.array:
        """The guided prediction, with a weight for each image, or one for all; it is counted."""
        weight = weights[0] if len(set(weights)) == 1 else np.array(weights)
        leads_away = None if weaker is None else partial(predicted, weaker)
        prediction, passes = guided(self._predict, x, t, condition, weight, leads_away)
        self.cost.evaluations += len(x)
        self.cost.passes += passes
        return prediction

    def _conditions(self, rows: np.ndarray) -> mx.array | None:
        """(b, ...) conditions of some images."""
        if self.mixture is not None:
            raise ValueError("each image has a condition of its own, and nobody said which images these are: of_images")
        condition = self.condition
        if condition is None:
            return None
        if len(condition) == 1:
            return mx.broadcast_to(condition, (len(rows), *condition.shape[1:]))
        if rows.max() >= len(condition):
            raise ValueError(f"there are conditions of {len(condition)} images, and image {rows.max()} is to be drawn")
        return condition[mx.array(rows)]


def predicted(network: Denoiser, x: mx.array, t: mx.array, condition: mx.array | None) -> mx.array:
    """What a network predicts of (b, H, W, C) states.

    Raises:
        Unusable: if that is no MLX array, or has another shape than the states.
    """
    prediction: Any = network(x, t, condition)
    if not isinstance(prediction, mx.array):
        kind = type(prediction)
        raise Unusable(
            f"the network gives a {kind.__module__}.{kind.__qualname__}; it must give an MLX array, mx.array"
        )
    if prediction.shape != x.shape:
        raise Unusable(f"the network predicts {prediction.shape} for states of {x.shape}; they must agree")
    return prediction


def _together(waiting: Sequence[Waiting]) -> tuple[mx.array, mx.array, np.ndarray]:
    """Images, timesteps and rows of all that wait."""
    if len(waiting) == 1:
        x_t, node, rows, _ = waiting[0]
        return x_t, mx.full((len(x_t),), node.t), rows

    t = np.repeat([some.node.t for some in waiting], [len(some.rows) for some in waiting])
    rows = np.concatenate([some.rows for some in waiting])
    return mx.concatenate([some.x_t for some in waiting]), mx.array(t.astype(np.float32)), rows
