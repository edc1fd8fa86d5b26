"""Only as many steps as the measured curve asks for: what is chosen, what it costs, and that the pictures are right."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.baseline.schedulers import DDIMScheduler
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.rng import image_keys, normal
from adaptive_diffusion.sampling.quality import error_of
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.sampling.step_reduction import StepReductionSampler, complexities
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.calibrated import CalibratedSchedule, CalibratedSteps, Score

CURVE = {4: 0.2, 6: 0.1, 8: 0.05, 12: 0.02}
KEYS = image_keys(3, range(4))
X_T = normal(KEYS, (8, 8, 3))
SMOOTH = mx.array([0.0, 1.0, 0.0, 1.0])  # which pictures the model makes smooth


class Model:
    """Clean predictions: the noise itself, or blurred where the condition says; counts pictures."""

    def __init__(self):
        self.batches = list[int]()

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        assert condition is not None
        self.batches.append(len(x))
        blurred = sum(mx.roll(x, (i, j), axis=(1, 2)) for i in range(-2, 3) for j in range(-2, 3)) / 25
        weight = condition.reshape(-1, 1, 1, 1)
        return 0.4 * (weight * blurred + (1 - weight) * x)


def scheduler(steps: int = 12, calibration: CalibratedSchedule | None = None) -> AdaptiveScheduler:
    return AdaptiveScheduler(num_inference_steps=steps, prediction_type="sample", calibration=calibration)


def sampler(target: float, steps: int = 12, detail: float | None = None) -> StepReductionSampler:
    """With a curve of its own, and an exponent of complexity or none."""
    made = StepReductionSampler(scheduler(steps), target, "noise")
    known = {} if detail is None else {"noise": {"complexity": 0.75, "exponent": detail}}
    made.estimator.calibration = replace(made.estimator.calibration, curve=CURVE, detail=known)
    return made


def quality_at(error: float) -> float:
    """The quality of an RMSE, a little easier than that."""
    return 1 / (1 + 1.001 * error / 0.12)


def draw(made: StandardSampler, some: slice = slice(None)):
    model = Model()
    return made.run(model, X_T[some], condition=SMOOTH[some], keys=KEYS[some]), model


@pytest.mark.parametrize(("error", "steps"), [(0.3, 4), (0.2, 4), (0.1, 6), (0.09, 8), (0.02, 12), (0.001, 12)])
def test_the_fewest_steps_that_reach_the_target_are_taken(error, steps):
    assert error_of(quality_at(error)) == pytest.approx(error, rel=2e-3)
    result, _ = draw(sampler(quality_at(error)))
    assert result.evaluations.tolist() == [steps] * 4


def test_no_picture_gets_more_steps_than_the_scheduler_has():
    result, _ = draw(sampler(quality_at(0.001), steps=7))
    assert result.evaluations.tolist() == [7] * 4


def test_a_busier_picture_gets_more_steps_where_complexity_matters():
    result, model = draw(sampler(quality_at(0.06), detail=3.0))
    assert result.evaluations.tolist() == [12, 6, 12, 6]
    assert model.batches == [4, *[2] * 5, *[2] * 11]  # the first evaluation is one for all
    assert result.total_evaluations == sum(model.batches)
    assert draw(sampler(quality_at(0.06)))[0].evaluations.tolist() == [8] * 4


def test_complexity_is_that_of_the_scheduler():
    assert np.mean(complexities(X_T)) == pytest.approx(scheduler().estimate_complexity(X_T))


def test_the_pictures_are_those_of_that_many_steps():
    reduced, _ = draw(sampler(quality_at(0.06), detail=3.0))
    for i, n in enumerate(reduced.evaluations):
        plain, _ = draw(StandardSampler(scheduler(int(n))), slice(i, i + 1))
        np.testing.assert_allclose(np.array(reduced.images[i]), np.array(plain.images[0]), atol=1e-6)


def test_a_batch_leaves_the_scheduler_as_it_was():
    made = sampler(quality_at(0.1))
    before = made.scheduler.timesteps.copy()
    first, _ = draw(made)
    assert np.array_equal(made.scheduler.timesteps, before)
    again, _ = draw(made)
    assert np.array_equal(np.array(first.images), np.array(again.images))


def test_a_calibration_of_the_scheduler_brings_its_own_curve():
    def steps(n: int, error: float) -> CalibratedSteps:
        grid = tuple(float(t) for t in 999 * (1 - np.arange(n) / n))
        return CalibratedSteps(grid, None, "rule", {"rule": Score(error, 0.0), "quadratic": Score(9.0, 0.0)})

    known = {4: steps(4, 0.05), 8: steps(8, 0.01)}
    schedule = CalibratedSchedule("m", 1.0, "noise", 1000, "rmse", 2, 2, known)
    made = StepReductionSampler(scheduler(20, schedule), quality_at(0.04))
    assert made.curve() == {4: 0.05, 8: 0.01}
    assert draw(made)[0].evaluations.tolist() == [8] * 4


def test_the_report_holds_the_quality_that_the_curve_expects_against_the_target():
    made = sampler(quality_at(0.06), detail=3.0)
    assert made.report() == {}
    traces = list(made.iterate(Model(), X_T, condition=SMOOTH))
    steps = np.sum([trace.active for trace in traces], axis=0)
    factors = (complexities(traces[0].x0) / 0.75) ** 3
    expected = [1 / (1 + CURVE[n] * factor / 0.12) for n, factor in zip(steps, factors, strict=True)]
    np.testing.assert_allclose(traces[-1].quality, expected)
    assert made.report() == {
        "sampling/quality_target": quality_at(0.06),
        "sampling/estimated_quality": pytest.approx(np.mean(expected)),
        "sampling/share_at_target": 1.0,
    }
    assert len(made.get_quality_history()) == len(traces) == 17


def test_steps_between_those_of_the_curve_and_a_target_out_of_reach():
    """From 8 to 12 steps the error falls as a power: at sqrt(96) steps it is the geometric mean."""
    made = sampler(quality_at(0.001), steps=10)
    assert made.expected_error(8) == pytest.approx(0.05)
    between = np.log(10 / 8) / np.log(12 / 8)
    assert made.expected_error(10) == pytest.approx(0.05 ** (1 - between) * 0.02**between)
    draw(made)
    assert made.report()["sampling/share_at_target"] == 0.0
    assert made.report()["sampling/estimated_quality"] == pytest.approx(1 / (1 + made.expected_error(10) / 0.12))


def test_what_has_no_curve_is_refused():
    with pytest.raises(ValueError, match="take scheduler=adaptive"):
        StepReductionSampler(DDIMScheduler())
    with pytest.raises(ValueError, match="quality_target must be"):
        StepReductionSampler(scheduler(), 0.0)
    own = sampler(0.5)
    own.scheduler.set_timesteps(timesteps=[999, 500, 100])
    with pytest.raises(UserError, match="grid=own"):
        draw(own)
    with pytest.raises(UserError, match="at least 2"):
        draw(sampler(0.5, steps=1))
