"""The file that calibrations add to, whatever recipe they follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tiny import tiny_model

from adaptive_diffusion.calibration.calibrate import schedule_of
from adaptive_diffusion.calibration.store import ScheduleFile
from adaptive_diffusion.diffusion import GuidedModel
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score, log_snr_of


@dataclass(frozen=True)
class AsGiven:
    """A recipe that makes steps up, in the order in which they are wanted."""

    steps: tuple[int, ...]

    def evaluations(self, model: GuidedModel | None = None) -> int:
        return 0

    def only(self, steps: list[int]) -> AsGiven:
        return replace(self, steps=tuple(steps))

    def decides(self, n: int) -> dict[str, int]:
        return {}

    def calibrate(
        self, model: GuidedModel, progress: Callable[[int], None] | None = None
    ) -> Iterator[CalibratedSchedule]:
        found = {}
        for n in self.steps:
            timesteps = tuple(np.linspace(999, 0, n).tolist())
            found[n] = CalibratedSteps(timesteps, None, "made up", {"made up": Score(0.1, 0.01)})
            yield schedule_of(model, 8, 2, 2, found)


def test_steps_are_kept_in_whatever_order_a_recipe_finds_them(tmp_path: Path) -> None:
    file = ScheduleFile(tmp_path / "s.json")
    model = GuidedModel.from_model(tiny_model(content_hash="tiny"), domain="landscapes")
    assert [n for _, n in file.calibrate(model, AsGiven((4, 2, 3, 2)))] == [4, 2, 3]
    (kept,) = file.read()
    assert set(kept.steps) == {2, 3, 4}
    assert list(file.calibrate(model, AsGiven((2, 3, 4)))) == []


def test_steps_of_another_noise_process_are_not_taken_for_finished(tmp_path: Path) -> None:
    file = ScheduleFile(tmp_path / "s.json")
    model = GuidedModel.from_model(tiny_model(content_hash="tiny"), domain="landscapes")
    other = replace(model, process=NoiseSchedule())  # linear
    list(file.calibrate(model, AsGiven((2, 3))))
    assert [n for _, n in file.calibrate(other, AsGiven((3,)))] == [3]
    assert {schedule.log_snr: set(schedule.steps) for schedule in file.read()} == {
        log_snr_of(model.process): {2},
        log_snr_of(other.process): {3},
    }
    found = [find_schedule(file.path, "tiny", "landscapes", 1.0, num_steps=n) for n in (2, 3)]
    assert [schedule.log_snr for schedule in found if schedule] == [log_snr_of(m.process) for m in (model, other)]
