"""AdaptiveScheduler: the power grid, how content bends it, and the step that checks itself."""

from __future__ import annotations

from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from gaussian import STD, ode_solution, output_std, run

from adaptive_diffusion.grids.spacings import PowerGrid
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DDIMScheduler, DPMSolverScheduler
from adaptive_diffusion.schedulers.content import bent_power
from adaptive_diffusion.types import SchedulerOutput

X = np.random.default_rng(0).standard_normal((4, 4, 4, 3))


def steps_of(scheduler: AdaptiveScheduler) -> np.ndarray:
    return -np.diff([*scheduler.timesteps, 0.0])


# --- the grid ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 5, 50, 1000])
@pytest.mark.parametrize("progress_power", [0.5, 1.0, 2.0, 3.5])
def test_default_grid_is_the_power_grid(n, progress_power):
    scheduler = AdaptiveScheduler(num_inference_steps=n, progress_power=progress_power)
    expected = 999 * (1 - np.arange(n) / n) ** progress_power
    np.testing.assert_allclose(scheduler.timesteps, expected)
    assert len(scheduler) == scheduler.num_inference_steps == n


@pytest.mark.parametrize("n", [2, 3, 5, 10, 50])
def test_default_run_is_dpm_solver_2m_on_that_grid(n):
    """To the bit: the self-check changes no step of a model that does not contradict itself."""
    scheduler = AdaptiveScheduler(num_inference_steps=n)
    plain = DPMSolverScheduler(clip_sample=True)
    plain.set_timesteps(timesteps=scheduler.timesteps)
    np.testing.assert_array_equal(run(scheduler, X), run(plain, X))
    assert scheduler.get_schedule_info()["first_order_fraction"] in (0.0, None)


def test_timesteps_are_not_those_of_ddim():
    """A known fault: weights computed from progress and complexity, and never used."""
    ddim = DDIMScheduler()
    ddim.set_timesteps(20)
    scheduler = AdaptiveScheduler(num_inference_steps=20)
    assert np.abs(scheduler.timesteps - ddim.timesteps).max() > 100


def test_smoother_content_gets_more_steps_at_high_noise():
    scheduler = AdaptiveScheduler()
    plain, grids = scheduler.timesteps, []
    for complexity in (0.6, 0.4, 0.2, 0.1):
        scheduler.set_timesteps(10, complexity)
        grids.append(scheduler.timesteps)
        assert scheduler.get_schedule_info()["complexity"] == complexity
    assert all((later >= earlier - 1e-6).all() for earlier, later in pairwise(grids))
    assert (grids[1][1:] > grids[0][1:]).all()
    scheduler.set_timesteps(50)
    np.testing.assert_array_equal(scheduler.timesteps, plain)
    for complexity in (0.6, 1.0):
        scheduler.set_timesteps(50, complexity)
        np.testing.assert_array_equal(scheduler.timesteps, plain)


@pytest.mark.parametrize("n", [1, 2, 5, 20, 200, 1000])
@pytest.mark.parametrize(("low", "high"), [(0.5, 2.0), (0.9, 1.05), (1.0, 1.0), (0.01, 100.0)])
@pytest.mark.parametrize("power", [0.5, 2.0, 4.0])
def test_bent_steps_stay_within_the_ratios_of_the_plain_ones(n, low, high, power):
    scheduler = AdaptiveScheduler(1000, n, progress_power=power, min_step_ratio=low, max_step_ratio=high)
    plain = steps_of(scheduler)
    scheduler.set_timesteps(n, complexity=0.0)
    ratio = steps_of(scheduler) / plain
    assert low - 1e-6 <= ratio.min() <= ratio.max() <= high + 1e-6
    assert len(scheduler) == n
    assert scheduler.timesteps[0] == 999


def test_a_power_is_bent_as_far_as_the_bounds_allow():
    half = 0.3  # of the complexity from which on the power stays
    power = bent_power(100, 2.0, half, 0.5, 2.0)
    assert 1.5 < power < 2
    last_step_ratio = 100 ** (2.0 - power)  # (1/N)^p / (1/N)^2, the largest of all
    assert last_step_ratio == pytest.approx(2.0, rel=1e-6)
    assert bent_power(4, 2.0, half, 0.5, 2.0) == 1.5


# --- accuracy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("complexity", [None, 0.5])
def test_output_std_approaches_that_of_the_data_as_steps_increase(complexity):
    """A known fault: 0.30, 0.62, 1.36, 6.2 and 62 instead of 0.5 at 5, 10, 20, 50 and 100 steps."""
    scheduler = AdaptiveScheduler(clip_sample=False)
    errors = []
    for n in (5, 10, 20, 50, 100):
        scheduler.set_timesteps(n, complexity)
        errors.append(abs(output_std(scheduler) - STD))
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.05
    assert errors[-1] < 1e-3


def test_beats_ddim_at_equal_steps_on_gaussian_data():
    for n in (5, 8, 10, 15, 20):
        adaptive, ddim = AdaptiveScheduler(num_inference_steps=n, clip_sample=False), DDIMScheduler(clip_sample=False)
        ddim.set_timesteps(timesteps=PowerGrid(1)(ddim.schedule, n))
        errors = [np.abs(run(s, X) - ode_solution(s, X, None)).max() for s in (adaptive, ddim)]
        assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize("falloff", [2.0, 2.5, 3.0, 4.0])
def test_complexity_lowers_the_error_on_the_spectra_of_pictures(falloff):
    """Gaussian images with power 1 / f^a, as natural ones have (Field, 1987: a about 2), in their cosine basis."""
    k = np.arange(32)
    power = (k[:, None] ** 2 + k[None] ** 2 + 0.25) ** (-falloff / 2)
    differences = 4 * np.sin(np.pi * k / 64) ** 2  # E[dx^2] of a cosine of unit power
    contrast = np.where(power == power.max(), 0, power)  # all but the mean
    complexity = np.sqrt(np.sum(contrast * (differences[:, None] + differences)) / (4 * contrast.sum()))
    std = STD * np.sqrt(power / power.mean())[None, :, :, None]
    x = np.ones((1, 32, 32, 1))  # the model is linear: the error from here is the expected one
    scheduler = AdaptiveScheduler(clip_sample=False)
    for n in (5, 8, 10):
        errors = []
        for c in (None, complexity):
            scheduler.set_timesteps(n, c)
            truth = ode_solution(scheduler, x, None, std=std)
            errors.append(np.sqrt(np.mean((run(scheduler, x, std=std) - truth) ** 2)))
        assert errors[1] < 0.98 * errors[0]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 1000])
def test_any_number_of_steps_is_finite_and_ends_clean(n):
    scheduler = AdaptiveScheduler(num_inference_steps=n, clip_sample=False)
    y = run(scheduler, X)
    assert np.isfinite(y).all()
    x = mx.array(X, mx.float32)
    output = scheduler.step(0.3 * x, scheduler.timesteps[-1], x, return_dict=True)
    assert isinstance(output, SchedulerOutput)
    np.testing.assert_allclose(output.prev_sample, output.pred_original_sample, atol=1e-6)


# --- the step that checks itself --------------------------------------------------------------------------------------


def contradict(scheduler: AdaptiveScheduler, pictures: list[bool]) -> np.ndarray:
    """Samples of a model of x0 whose predictions flip their sign at every step, for the images named."""
    flips = np.array(pictures).reshape(-1, 1, 1, 1)
    x = mx.array(X[: len(pictures)], mx.float32)
    for i, t in enumerate(scheduler.timesteps[:-1]):
        x = scheduler.step(mx.array(np.where(flips, (-1.0) ** i, 0.5) * np.ones(x.shape), mx.float32), t, x)
    return np.array(x)


def test_threshold_zero_is_the_first_order_solver():
    scheduler = AdaptiveScheduler(num_inference_steps=10, adaptive_threshold=0.0, clip_sample=False)
    first_order = DPMSolverScheduler(solver_order=1)
    first_order.set_timesteps(timesteps=scheduler.timesteps)
    np.testing.assert_allclose(run(scheduler, X), run(first_order, X), atol=1e-6)
    assert scheduler.get_schedule_info()["first_order_fraction"] == 1.0


def test_pictures_whose_predictions_contradict_each_other_fall_back_alone():
    build = {"num_inference_steps": 10, "prediction_type": "sample"}
    careful, plain = (
        AdaptiveScheduler(adaptive_threshold=0.02, **build),
        AdaptiveScheduler(adaptive_threshold=1.0, **build),
    )
    first_order = DPMSolverScheduler(solver_order=1, prediction_type="sample")
    first_order.set_timesteps(timesteps=careful.timesteps)
    a, b, c = (contradict(s, [True, False]) for s in (careful, plain, first_order))
    np.testing.assert_allclose(a[0], c[0], atol=1e-6)
    np.testing.assert_array_equal(a[1], b[1])
    assert np.abs(a[0] - b[0]).max() > 0.1
    assert careful.get_schedule_info()["first_order_fraction"] == 0.5


def test_error_is_the_one_of_the_docstring():
    """D = 1, then -1: E = (1 - e^-h) h / (2 h_prev) 2 alpha' / (2 alpha' + sigma')."""
    scheduler = AdaptiveScheduler(num_inference_steps=10, prediction_type="sample")
    lam = scheduler.schedule.log_snr(scheduler.timesteps[:3])
    x, one = mx.array(X, mx.float32), mx.ones(X.shape)
    scheduler.step(one, scheduler.timesteps[0], x)
    assert scheduler.get_schedule_info()["avg_error"] is None
    scheduler.step(-one, scheduler.timesteps[1], x)
    h_prev, h = np.diff(lam)
    alpha, sigma = (float(f(scheduler.timesteps[2])) for f in (scheduler.schedule.alpha, scheduler.schedule.sigma))
    expected = -np.expm1(-h) * h / (2 * h_prev) * 2 * alpha / (2 * alpha + sigma)
    assert scheduler.get_schedule_info()["avg_error"] == pytest.approx(expected, rel=1e-4)


# --- complexity, quality and what is reported -------------------------------------------------------------------------


def test_complexity_is_zero_for_constants_and_one_for_white_noise():
    scheduler = AdaptiveScheduler()
    constant = mx.broadcast_to(mx.array([0.1, -0.7, 0.33]), (2, 32, 32, 3))
    assert scheduler.estimate_complexity(constant) == pytest.approx(0, abs=1e-2)
    assert scheduler.estimate_complexity(mx.random.normal((4, 64, 64, 3), key=mx.random.key(0))) > 0.95


def test_complexity_of_a_wave_is_that_of_its_frequency_whatever_its_contrast():
    """cos(k x) along x: E[dx^2] = 4 sin^2(k / 2) Var, hence c = |sin(k / 2)|."""
    scheduler = AdaptiveScheduler()
    for periods in (1, 4, 16):
        k = 2 * np.pi * periods / 64
        wave = np.cos(k * np.arange(64))[None, None, :, None] * np.ones((1, 64, 1, 1))
        for contrast in (0.05, 1.0):
            c = scheduler.estimate_complexity(mx.array(contrast * wave, mx.float32))
            assert c == pytest.approx(np.sin(k / 2), rel=0.03)
    assert scheduler.estimate_complexity(mx.array(wave[0], mx.float32)) == pytest.approx(c)  # an image without a batch


def test_info_before_any_step_reports_the_grid_and_nothing_else():
    info = AdaptiveScheduler(num_inference_steps=4).get_schedule_info()
    assert info["num_inference_steps"] == 4
    assert info["timesteps"] == pytest.approx([999, 561.9375, 249.75, 62.4375])
    assert info["power"] == 2.0
    assert [info[k] for k in ("avg_quality", "quality_source", "avg_complexity", "avg_error")] == [None] * 4


def test_info_after_a_run_is_measured_on_it():
    scheduler = AdaptiveScheduler(num_inference_steps=10)
    y = run(scheduler, X)
    info = scheduler.get_schedule_info()
    assert 0 < info["avg_error"] < 0.2
    assert info["avg_quality"] == pytest.approx(1 - info["avg_error"])
    assert info["quality_source"] == "solver agreement"
    assert info["avg_complexity"] == pytest.approx(AdaptiveScheduler().estimate_complexity(mx.array(y)), abs=1e-5)


def test_quality_estimates_are_recorded_and_change_no_step():
    scheduler = AdaptiveScheduler(num_inference_steps=5)
    expected = run(scheduler, X)
    scheduler.set_timesteps()
    x = mx.array(X, mx.float32)
    from gaussian import predict

    for t, quality in zip(scheduler.timesteps, (0.2, 0.4, mx.array([0.5, 0.7, 0.6, 0.6]), None, 0.8), strict=True):
        x = scheduler.step(mx.array(predict(scheduler, t, np.array(x)), mx.float32), t, x, quality)
    np.testing.assert_allclose(x, expected, atol=1e-5)
    info = scheduler.get_schedule_info()
    assert info["avg_quality"] == pytest.approx(0.5)
    assert info["quality_source"] == "estimates"
    with pytest.raises(ValueError, match="quality_estimate must be a number, at least 0 and at most 1, got 1"):
        scheduler.step(x, scheduler.timesteps[0], x, quality_estimate=1.5)
    with pytest.raises(ValueError, match="quality_estimate must be a number, at least 0 and at most 1, got"):
        scheduler.step(x, scheduler.timesteps[0], x, quality_estimate=np.float32(7))


def test_history_is_averaged_until_it_is_reset():
    scheduler = AdaptiveScheduler()
    noise = mx.random.normal((2, 32, 32, 3), key=mx.random.key(0))
    first, second = scheduler.estimate_complexity(noise), scheduler.estimate_complexity(mx.zeros((1, 32, 32, 3)))
    scheduler.set_timesteps(5)
    assert scheduler.get_schedule_info()["avg_complexity"] == pytest.approx((first + second) / 2)
    scheduler.reset_history()
    assert scheduler.get_schedule_info()["avg_complexity"] is None
    assert len(scheduler) == 5


# --- conventions and bad values ---------------------------------------------------------------------------------------


def test_constructor_and_methods_of_the_documentation():
    scheduler = AdaptiveScheduler(
        num_train_timesteps=1000,
        num_inference_steps=50,
        adaptive_threshold=0.5,
        progress_power=2.0,
        min_step_ratio=0.5,
        max_step_ratio=2.0,
    )
    x = mx.array(X, mx.float32)
    scheduler.set_timesteps(num_inference_steps=20, complexity=scheduler.estimate_complexity(x))
    noisy = scheduler.add_noise(original_samples=x, noise=x, timesteps=mx.array([0, 10, 500, 999]))
    prev_sample = scheduler.step(x, scheduler.timesteps[0], noisy, quality_estimate=0.7)
    assert isinstance(prev_sample, mx.array)
    assert prev_sample.shape == x.shape
    assert {"avg_quality", "avg_complexity", "num_inference_steps", "timesteps"} <= scheduler.get_schedule_info().keys()
    scheduler.reset_history()


def test_saved_and_loaded_again_it_is_the_same(tmp_path):
    scheduler = AdaptiveScheduler(500, 12, 0.3, 2.5, 0.7, 1.5, prediction_type="v_prediction", clip_sample=False)
    scheduler.set_timesteps(7)
    scheduler.save(tmp_path)
    loaded = AdaptiveScheduler.load(tmp_path)
    assert loaded.config == scheduler.config
    assert len(loaded) == 12, "the constructor's number of steps, not that of the latest run"
    loaded.set_timesteps(7)
    np.testing.assert_array_equal(loaded.timesteps, scheduler.timesteps)


def test_own_timesteps_and_batches_that_shrink():
    scheduler = AdaptiveScheduler()
    scheduler.set_timesteps(timesteps=[900, 500.5, 20, 3])
    assert scheduler.get_schedule_info()["power"] is None
    x = mx.array(X, mx.float32)
    for i, t in enumerate(scheduler.timesteps):
        if i == 2:
            scheduler.select(np.array([True, False, False, True]))
            x = x[mx.array([0, 3])]
        x = scheduler.step(mx.tanh(x), t, x)
    assert scheduler.get_schedule_info()["avg_error"] > 0


def test_set_timesteps_without_arguments_goes_back_to_the_constructors_number():
    scheduler = AdaptiveScheduler(num_inference_steps=9)
    scheduler.set_timesteps(4)
    scheduler.set_timesteps()
    assert len(scheduler) == 9
    assert len(AdaptiveScheduler(num_inference_steps=None)) == len(AdaptiveScheduler()) == 50
    assert len(AdaptiveScheduler(num_train_timesteps=20)) == 20
    with pytest.raises(ValueError, match="num_inference_steps must be a whole number, between 1 and 20, got 21"):
        AdaptiveScheduler(num_train_timesteps=20, num_inference_steps=21)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps must be a whole number, between 1 and 1000, got 0"),
        ({"num_inference_steps": 1001}, "num_inference_steps must be a whole number, between 1 and 1000, got 1001"),
        ({"num_inference_steps": 2.5}, "num_inference_steps must be a whole number"),
        ({"adaptive_threshold": -0.1}, "adaptive_threshold must be a number, at least 0 and at most 1"),
        ({"progress_power": 0}, "progress_power must be a number, greater than 0 and at most 10, got 0"),
        ({"progress_power": float("nan")}, "progress_power must be a number"),
        ({"min_step_ratio": 0}, "min_step_ratio must be a number, greater than 0 and at most 1"),
        ({"min_step_ratio": 1.5}, "min_step_ratio must be a number"),
        ({"max_step_ratio": 0.9}, "max_step_ratio must be a number, at least 1"),
        ({"prediction_type": "x"}, "prediction_type must be one of"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveScheduler(**arguments)


def test_bad_complexities_and_pictures_are_refused():
    scheduler = AdaptiveScheduler()
    assert scheduler.estimate_complexity(np.eye(6)[..., None]) == scheduler.estimate_complexity(mx.eye(6)[..., None])
    for complexity in (-0.1, 1.2, float("nan"), "high"):
        with pytest.raises(ValueError, match="complexity must be a number, at least 0 and at most 1"):
            scheduler.set_timesteps(5, complexity)
    with pytest.raises(ValueError, match="either timesteps or a complexity"):
        scheduler.set_timesteps(complexity=0.5, timesteps=[5, 3])
    for shape in ((4, 4), (2, 1, 5, 3), (0, 4, 4, 3)):
        with pytest.raises(ValueError, match="complexity needs images of shape"):
            scheduler.estimate_complexity(mx.zeros(shape))
