"""Recognise what calibrated steps were fitted for: a noise process, a size of states, a model that a user names."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from ..diffusion.guided_model import GuidedModel
from ..grids.calibrated_schedule import OTHER_PROCESS, CalibratedSchedule

log = logging.getLogger(__name__)

SIZE, PREDICTIONS = "another size", "other predictions"  # why the weights are left out


class Recognition:
    """Leaves the weights out at another size, and for a network that predicts otherwise than the calibrated one.

    It says so once. It takes one evaluation for each network that draws, and none where the calibration has no
    fingerprint.
    """

    def __init__(self) -> None:
        self._seen: tuple[Any, bool] | None = None  # the network that drew last, and whether it was recognised
        self._told = ""  # of which other size or process the last warning was

    def __call__(
        self, calibration: CalibratedSchedule, model: GuidedModel, shape: tuple[int, ...]
    ) -> CalibratedSchedule:
        """The calibration, without its weights where they were fitted for something else.

        Args:
            calibration: Of which the timesteps are taken.
            model: The model that draws.
            shape: (H, W, C) of its states.
        """
        if calibration.otherwise == OTHER_PROCESS and self._told != OTHER_PROCESS:
            self._told = OTHER_PROCESS
            log.warning(
                "the steps were calibrated for another noise process than the scheduler's, so that only their "
                "timesteps are used: give the scheduler that of the model, or calibrate the model with this one"
            )
        if calibration.otherwise not in ("", SIZE, PREDICTIONS):
            return calibration  # left out for another reason, found when it was read
        if self._is_larger_or_smaller(calibration, model, shape):
            return replace(calibration, otherwise=SIZE)
        return replace(calibration, otherwise="" if self._predicts_alike(calibration, model, shape) else PREDICTIONS)

    def _is_larger_or_smaller(
        self, calibration: CalibratedSchedule, model: GuidedModel, shape: tuple[int, ...]
    ) -> bool:
        fitted = calibration.state_shape or getattr(model.network, "state_shape", None)
        if fitted is None or tuple(fitted[:2]) == shape[:2]:
            return False
        here = "x".join(map(str, shape[:2]))
        if here != self._told:
            log.warning(
                "the steps were calibrated for states of %dx%d, and these are %s, so that only their timesteps are "
                "used: calibrate the model at this size",
                *fitted[:2],
                here,
            )
        self._told = here
        return True

    def _predicts_alike(self, calibration: CalibratedSchedule, model: GuidedModel, shape: tuple[int, ...]) -> bool:
        known = calibration.fingerprint
        if known is None:
            return True
        if self._seen is None or self._seen[0] is not model.network:
            alike = known.is_of(model, shape)
            if alike is None:
                return True  # which says nothing of the runs to come
            self._seen = model.network, alike
            if not alike:
                log.warning(
                    "%s predicts otherwise than when its steps were calibrated, so that only their timesteps are used: "
                    "calibrate it anew, or give it another identity",
                    calibration.model or "the model",
                )
        return self._seen[1]
