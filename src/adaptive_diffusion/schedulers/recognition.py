"""Recognise the model that draws, where a calibration knows it by a name that a user gave and not by a hash."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from ..diffusion.guided_model import GuidedModel
from ..grids.calibrated_schedule import CalibratedSchedule

log = logging.getLogger(__name__)

OTHERWISE = "other predictions"  # why the weights are left out


class Recognition:
    """Leaves the weights out for a network that predicts otherwise than the calibrated one, and says so once.

    It takes one evaluation for each network that draws, and none where the calibration has no fingerprint.
    """

    def __init__(self) -> None:
        self._seen: tuple[Any, bool] | None = None  # the network that drew last, and whether it was recognised

    def __call__(
        self, calibration: CalibratedSchedule, model: GuidedModel, shape: tuple[int, ...]
    ) -> CalibratedSchedule:
        """The calibration, without its weights for another network.

        Args:
            calibration: Of which the timesteps are taken.
            model: The model that draws.
            shape: (H, W, C) of its states.
        """
        if calibration.fingerprint is None:
            return calibration
        if self._seen is None or self._seen[0] is not model.network:
            self._seen = model.network, calibration.fingerprint.is_of(model, shape)
            if not self._seen[1]:
                log.warning(
                    "%s predicts otherwise than when its steps were calibrated, so that only their timesteps are used: "
                    "calibrate it anew, or give it another identity",
                    calibration.model or "the model",
                )
        if not self._seen[1]:
            return replace(calibration, otherwise=OTHERWISE)
        return replace(calibration, otherwise="") if calibration.otherwise == OTHERWISE else calibration
