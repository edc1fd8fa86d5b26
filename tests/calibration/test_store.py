"""The file that calibrations add to, whatever recipe they follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_model

from adaptive_diffusion.calibration.calibrate import schedule_of
from adaptive_diffusion.calibration.store import ScheduleFile
from adaptive_diffusion.diffusion import GuidedModel
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.grids.calibrated import find_schedule, merged
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score, log_snr_of
from adaptive_diffusion.grids.schedule_file import shipped_schedules


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


def test_steps_of_a_file_that_knows_no_noise_process_join_those_of_one_that_does() -> None:
    model = GuidedModel.from_model(tiny_model(content_hash="tiny"), domain="landscapes")
    (known,) = AsGiven((2,)).calibrate(model)
    (old,) = (replace(schedule, log_snr=None) for schedule in AsGiven((3,)).calibrate(model))
    (other,) = AsGiven((4,)).calibrate(replace(model, process=NoiseSchedule()))
    found = merged([old, known, other])
    assert [(set(schedule.steps), schedule.log_snr) for schedule in found] == [
        ({2, 3}, log_snr_of(model.process)),
        ({4}, log_snr_of(NoiseSchedule())),
    ]


def test_what_ships_is_not_taken_whole_for_another_noise_process() -> None:
    shipped = find_schedule(None, shipped_schedules()[0].model, "landscapes", 1.5)
    assert shipped is not None
    assert shipped.drawn_on(NoiseSchedule()).weights_hold
    assert not shipped.drawn_on(NoiseSchedule(beta_schedule="squaredcos_cap_v2")).weights_hold
    with pytest.raises(ValueError, match="log_snr must be known at 5 timesteps, got 2"):
        replace(shipped, log_snr=(1.0, 2.0))
