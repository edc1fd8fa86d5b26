"""ModelFacts: what a model says of itself in its metadata, with what holds where it says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self, overload

from ..errors import Unusable
from ..types import PictureModel
from .checks import check_choice, check_flag, check_number
from .guidance import Guidance
from .limits import Clipped, Limit, unlimited
from .schedule import PREDICTION_TYPES, SCHEDULE_ARGUMENTS, NoiseSchedule


@dataclass(frozen=True)
class ModelFacts:
    """What a model says of itself.

    Attributes:
        prediction_type: `epsilon`, `v_prediction` or `sample`; None where the model does not say.
        noise_schedule: Arguments of `NoiseSchedule`, as far as they are not its defaults.
        guidance_scale: The weight of classifier-free guidance that the model recommends; 1 is none.
        bounded: Whether clean predictions are images in [-1, 1]; latents are not bounded, and never clipped.
        content_hash: Of its files; "" where it has none.
        label_counts: Of a domain, how many training images each of its labels had, in the order of the labels; a domain
            is missing where nobody says it.

    Raises:
        ValueError: for a value out of range, or an unknown argument of the noise process.
    """

    prediction_type: str | None = None
    noise_schedule: Mapping[str, Any] = field(default_factory=dict)
    guidance_scale: float = 1.0
    bounded: bool = True
    content_hash: str = ""
    label_counts: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.prediction_type is not None:
            check_choice("prediction_type", self.prediction_type, PREDICTION_TYPES)
        check_number("guidance_scale", self.guidance_scale, 0)
        check_flag("bounded", self.bounded)

        schedule = self.noise_schedule
        if not isinstance(schedule, Mapping) or not schedule.keys() <= set(SCHEDULE_ARGUMENTS):
            given = ", ".join(map(str, schedule)) if isinstance(schedule, Mapping) else repr(schedule)
            raise ValueError(f"noise_schedule must have some of {', '.join(SCHEDULE_ARGUMENTS)}, got {given:.80}")
        _ = self.process  # it refuses values out of range

    @classmethod
    def of(cls, model: PictureModel) -> Self:
        """The facts of a model; its metadata may say more.

        Raises:
            Unusable: for metadata that say what cannot be.
        """
        known = model.metadata
        try:
            return cls(**{f.name: known[f.name] for f in fields(cls) if f.name in known})
        except ValueError as error:
            raise Unusable(f"the metadata of the model: {error}") from None

    @property
    def process(self) -> NoiseSchedule:
        """The noise process that the model was trained with."""
        return NoiseSchedule(**self.noise_schedule)

    @property
    def limit(self) -> Limit:
        """What keeps clean predictions in the range of the data."""
        return Clipped() if self.bounded else unlimited

    @overload
    def guidance(self, given: float | None) -> float: ...
    @overload
    def guidance(self, given: float | Guidance | None) -> float | Guidance: ...
    def guidance(self, given: float | Guidance | None) -> float | Guidance:
        """The guidance that was asked for; where none was, what the model recommends."""
        return float(self.guidance_scale) if given is None else given
