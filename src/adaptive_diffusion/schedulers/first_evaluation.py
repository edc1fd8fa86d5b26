"""Whether the first prediction of a run is known, so that it need not be evaluated: the setting `first_evaluation`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..diffusion.first_prediction import (
    SHARED,
    FirstPrediction,
    condition_of,
    conditions_in,
    first_node,
    first_prediction,
)
from ..diffusion.guidance import Guidance, weaker_in
from ..diffusion.guided_model import GuidedModel
from ..diffusion.kept_guidance import kept_guidance
from ..grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps
from ..grids.first_file import Ids, shipped_firsts
from ..io.counted import count
from ..types import Denoiser

log = logging.getLogger(__name__)

NETWORK = "network"
CHOICES = (NETWORK, "stored", "shared")
HELPS = range(5, 11)  # steps with which what ships is nearer than one step fewer: docs/evidence/first_evaluation.md


@dataclass
class FirstEvaluation:
    """Finds the first prediction of a run, and remembers what it measured.

    Args:
        choice: `network`, `stored` or `shared`, see `AdaptiveScheduler`.
    """

    choice: str
    _measured: dict[tuple[Ids, float | Guidance], tuple[Denoiser, FirstPrediction]] = field(default_factory=dict)
    _told: bool = False

    def forget(self) -> None:
        """Forget what was measured: another model or guidance follows."""
        self._measured.clear()

    def known(
        self, calibration: CalibratedSchedule, model: GuidedModel, shape: tuple[int, ...], n: int
    ) -> tuple[FirstPrediction | Sequence[FirstPrediction], CalibratedSteps] | None:
        """The first prediction of a run, and the calibrated steps that go with it; None where it is evaluated.

        Args:
            calibration: Of the model that draws.
            model: The model, with the conditions of the run.
            shape: (B, H, W, C) of the run's states.
            n: Number of steps.
        """
        conditions = conditions_in(model)
        if conditions is None:
            return None
        same = kept_guidance(model.guidance_scale) == calibration.guidance_scale
        steps, first = calibration.with_stored_first(n), calibration.first
        common = condition_of(model)
        if steps is not None and common is not None:
            if first is not None and first.condition == common and same:
                return first, steps
            if self.choice == "shared":
                return self._shared(model, common, shape), steps

        shipped = _shipped(calibration, model, conditions, n)
        if shipped is None:
            return None
        return (shipped if len(shipped) > 1 else shipped[0]), calibration.steps[n]

    def tell_unused(self, model: str = "", n: int = 0) -> None:
        """Warn, once, that the setting changes nothing.

        Args:
            model: Identity of the model that draws; "" where its number of steps is not the reason.
            n: Number of steps.
        """
        if self.choice == NETWORK or self._told:
            return
        self._told = True

        which = "for these labels, steps and guidance"
        if model and model == shipped_firsts().model and n not in HELPS:
            which = f"for {count(n, 'step')} (those that ship are for {HELPS[0]} to {HELPS[-1]} steps)"
        log.warning(
            "first_evaluation=%s has no effect: %s no first evaluation is stored that helps, so the network is "
            "evaluated at every timestep",
            self.choice,
            which,
        )

    def _shared(self, model: GuidedModel, condition: Ids, shape: tuple[int, ...]) -> FirstPrediction:
        key = condition, model.guidance_scale
        network, first = self._measured.get(key, (None, None))
        if first is None or network is not model.network:
            log.info("the shared first evaluation is measured once for all images, by %d evaluations", SHARED)
            first = first_prediction(model, shape[1:], SHARED, shape[0])
            self._measured[key] = model.network, first
        return first


def drawn_by(model: GuidedModel) -> str:
    """The identity of the model that draws; "" where it is not known."""
    return model.identity or getattr(model.network, "identity", "")


def _shipped(
    calibration: CalibratedSchedule, model: GuidedModel, conditions: Sequence[Ids], n: int
) -> list[FirstPrediction] | None:
    """The shipped prediction of each image at its guidance; None unless there are all, and they help with n steps."""
    firsts = shipped_firsts()
    same = firsts.model == calibration.model == drawn_by(model) and calibration.weights_hold
    if not same or n not in HELPS or n not in calibration.steps or not set(conditions) <= firsts.known.keys():
        return None
    if weaker_in(model.guidance_scale) is not None:  # no null condition
        return None

    weight = model.weight_at(first_node(model.process))
    guided = {ids: firsts.guided(ids, weight) for ids in set(conditions)}
    return [guided[ids] for ids in conditions]
