"""Only as many steps as the measured curve asks for: what is chosen and drawn, and what is refused."""

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score
from adaptive_diffusion.sampling.quality import SHIPPED, error_of, load_calibration
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.sampling.step_reduction import StepReductionSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DDIMScheduler

CURVE = {4: 0.2, 6: 0.1, 8: 0.05, 12: 0.02}
KEYS = image_keys(3, range(4))
X_T = normal(KEYS, (8, 8, 3))


class Model:
    """Clean predictions: what is half of the noisy image; counts images."""

    def __init__(self):
        self.batches = list[int]()

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        assert condition is None
        self.batches.append(len(x))
        return 0.5 * x


def scheduler(steps: int = 12, calibration: CalibratedSchedule | None = None, **settings: float) -> AdaptiveScheduler:
    return AdaptiveScheduler(num_inference_steps=steps, prediction_type="sample", calibration=calibration, **settings)


def sampler(target: float, steps: int = 12, **settings: float) -> StepReductionSampler:
    """With a curve of its own."""
    made = StepReductionSampler(scheduler(steps, **settings), target)
    made.estimator.calibration = replace(made.estimator.calibration, curve=CURVE)
    return made


def calibrated(model: str = "m") -> CalibratedSchedule:
    """4 steps leave an error of 0.05, 8 steps one of 0.01; a rival leaves 9."""

    def steps(n: int, error: float) -> CalibratedSteps:
        grid = tuple(float(t) for t in 999 * (1 - np.arange(n) / n))
        return CalibratedSteps(grid, None, "rule", {"rule": Score(error, 0.0), "quadratic": Score(9.0, 0.0)})

    return CalibratedSchedule(model, 1.0, "noise", 1000, "rmse", 2, 2, {4: steps(4, 0.05), 8: steps(8, 0.01)})


def quality_at(error: float) -> float:
    """The quality of an RMSE, a little easier than that."""
    return 1 / (1 + 1.001 * error / 0.12)


def draw(made: StandardSampler, some: slice = slice(None)):
    model = Model()
    return made.run(model, X_T[some], keys=KEYS[some]), model


@pytest.mark.parametrize(("error", "steps"), [(0.3, 4), (0.2, 4), (0.1, 6), (0.09, 8), (0.02, 12), (0.001, 12)])
def test_the_fewest_steps_that_reach_the_target_are_taken(error, steps):
    assert error_of(quality_at(error)) == pytest.approx(error, rel=2e-3)
    result, model = draw(sampler(quality_at(error)))
    assert result.evaluations.tolist() == [steps] * 4
    assert model.batches == [4] * steps


@pytest.mark.parametrize(("most", "steps"), [(7, 6), (8, 8), (11, 8), (50, 12)])
def test_out_of_reach_of_the_target_the_largest_number_that_was_measured_is_taken(most, steps):
    made = sampler(quality_at(0.001), steps=most)
    assert draw(made)[0].evaluations.tolist() == [steps] * 4
    assert len(made.scheduler) == most
    assert made.report()["sampling/expected_quality"] == pytest.approx(1 / (1 + CURVE[steps] / 0.12))


def test_the_pictures_are_those_of_that_many_steps():
    reduced, _ = draw(sampler(quality_at(0.06)))
    plain, _ = draw(StandardSampler(scheduler(8)))
    assert reduced.timesteps == plain.timesteps
    np.testing.assert_array_equal(np.array(reduced.images), np.array(plain.images))


def test_a_batch_leaves_the_scheduler_as_it_was():
    made = sampler(quality_at(0.1))
    before = made.scheduler.timesteps.copy()
    first, _ = draw(made)
    assert np.array_equal(made.scheduler.timesteps, before)
    again, _ = draw(made)
    assert np.array_equal(np.array(first.images), np.array(again.images))


def test_a_run_that_is_stopped_leaves_the_scheduler_as_it_was_and_is_not_reported():
    made = sampler(quality_at(0.1))
    before = made.scheduler.timesteps.copy()
    for trace in made.iterate(Model(), X_T):
        assert len(made.scheduler) == 6
        if trace.index == 2:
            break
    assert np.array_equal(made.scheduler.timesteps, before)
    assert made.report() == {}

    def fail(x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        raise MemoryError

    with pytest.raises(MemoryError):
        made.run(fail, X_T)
    assert np.array_equal(made.scheduler.timesteps, before)


@pytest.mark.parametrize(("most", "steps"), [(20, 8), (8, 8), (7, 4)])
def test_a_calibration_of_the_scheduler_brings_its_own_curve_of_the_steps_it_knows(most, steps):
    made = StepReductionSampler(scheduler(most, calibrated()), quality_at(0.04))
    assert made.curve() == {4: 0.05, 8: 0.01}
    assert draw(made)[0].evaluations.tolist() == [steps] * 4


def test_the_report_holds_what_the_curve_expects_and_what_is_estimated_beside_the_target():
    made = sampler(quality_at(0.06))
    assert made.report() == {}
    traces = list(made.iterate(Model(), X_T))
    assert made.report() == {
        "details/quality_target": quality_at(0.06),
        "sampling/estimated_quality": pytest.approx(traces[-1].quality.mean()),
        "sampling/expected_quality": pytest.approx(1 / (1 + 0.05 / 0.12)),
    }
    assert made.get_quality_history() == [pytest.approx(trace.quality.mean()) for trace in traces]
    assert made.get_quality_history()[0] == 0 < made.get_quality_history()[1]
    made.reset_history()
    assert made.report() == {}


def test_a_curve_of_another_model_is_refused():
    shipped = load_calibration(SHIPPED).model[:12]
    with pytest.raises(ValueError, match=f"measured on the model {shipped}, and this one is mine: .* calibrate"):
        StepReductionSampler(scheduler(), model="mine")
    with pytest.raises(ValueError, match="measured on the model m, and this one is mine"):
        StepReductionSampler(scheduler(8, calibrated("m")), model="mine")
    own = StepReductionSampler(scheduler(8, calibrated("mine")), quality_at(0.04), model="mine")
    draw(own)
    assert own.report() == {  # the estimator is of another model
        "details/quality_target": quality_at(0.04),
        "sampling/expected_quality": pytest.approx(1 / (1 + 0.01 / 0.12)),
    }


def test_its_timesteps_are_said_to_come_from_where_those_that_are_taken_do():
    known = calibrated("mine")
    other = {
        n: replace(steps, rule=f"rule of {n}", scores={**steps.scores, f"rule of {n}": steps.scores["rule"]})
        for n, steps in known.steps.items()
    }
    made = StepReductionSampler(scheduler(8, replace(known, steps=other)), quality_at(0.05), model="mine")
    assert made.steps() == 4
    StandardSampler(made.scheduler).run(lambda x, t, condition=None: x, mx.ones((1, 4, 4, 3)))
    before = made.scheduler.get_schedule_info()
    assert before["avg_complexity"] is not None
    assert "rule of 4" in made.origin
    assert made.scheduler.get_schedule_info() == before  # it was only asked
    assert len(made.scheduler) == 8


def test_what_has_no_curve_is_refused():
    with pytest.raises(ValueError, match="take scheduler=adaptive"):
        StepReductionSampler(DDIMScheduler())
    with pytest.raises(ValueError, match="quality_target must be"):
        StepReductionSampler(scheduler(), 0.0)
    for unlike in (sampler(0.5, progress_power=3.0), sampler(0.5, adaptive_threshold=0.4)):
        with pytest.raises(ValueError, match=r"progress_power=2.*adaptive_threshold=0.5"):
            unlike.check()
    with pytest.raises(ValueError, match="no error of 3 steps or fewer: take num_steps of at least 4"):
        sampler(0.5, steps=3).check()
    sampler(0.5, steps=4).check()


@pytest.mark.parametrize(("first", "cause"), [(999, r"\(grid\)"), (700, r"\(init_image\)")])
def test_timesteps_that_are_not_the_schedulers_own_are_refused_with_their_cause(first, cause):
    made = sampler(0.5)
    made.scheduler.set_timesteps(timesteps=[first, 500, 300, 100])
    for refused in (made.check, lambda: draw(made)):
        with pytest.raises(ValueError, match=cause):
            refused()


def test_its_settings_and_its_calibration_are_told_as_json():
    config = json.loads(json.dumps(sampler(0.5).config))
    assert config["quality_target"] == 0.5
    assert config["model"] is None
    assert config["calibration"]["curve"] == {str(n): error for n, error in CURVE.items()}
    assert config == sampler(0.5).config
