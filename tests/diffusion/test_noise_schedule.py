"""NoiseSchedule: against the definitions of the papers, and its own inverses."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.diffusion.schedule import BETA_SCHEDULES, NoiseSchedule, eps_from, x0_from
from adaptive_diffusion.grids.spacings import BlendedGrid, KarrasGrid, LogSNRGrid, PowerGrid

T = 1000


@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
def test_variance_is_preserved_and_log_snr_falls(beta_schedule):
    schedule = NoiseSchedule(beta_schedule=beta_schedule)
    t = np.linspace(0, T - 1, 4321)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, rtol=1e-12)
    assert (np.diff(schedule.log_snr(t)) < 0).all()


def test_linear_schedule_is_the_product_of_ddpm():
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, T))  # Ho et al., 2020, section 2
    t = np.arange(T)
    np.testing.assert_allclose(NoiseSchedule().alpha(t) ** 2, alpha_bar, rtol=1e-10)
    assert NoiseSchedule().sigma(0) == pytest.approx(0.01)  # sqrt(beta_1)


def test_cosine_schedule_is_that_of_improved_ddpm():
    def f(t):  # Nichol & Dhariwal, 2021, eq. 17
        return np.cos((t / T + 0.008) / 1.008 * np.pi / 2) ** 2

    schedule = NoiseSchedule(beta_schedule="squaredcos_cap_v2")
    t = np.arange(900)  # later on the cap on beta is at work
    np.testing.assert_allclose(schedule.alpha(t) ** 2, f(t + 1) / f(0), rtol=1e-9)


@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
def test_timestep_inverts_log_snr(beta_schedule):
    schedule = NoiseSchedule(beta_schedule=beta_schedule)
    t = np.linspace(0, T - 1, 777)
    np.testing.assert_allclose(schedule.timestep(schedule.log_snr(t)), t, atol=1e-7)
    assert schedule.timestep([100.0, -100.0]).tolist() == [0, T - 1]


def test_zero_terminal_snr_keeps_the_start_and_ends_without_signal():
    plain, rescaled = NoiseSchedule(), NoiseSchedule(rescale_betas_zero_snr=True)
    assert rescaled.alpha(0) == pytest.approx(plain.alpha(0))
    assert rescaled.alpha(T - 1) < 3e-4 < plain.alpha(T - 1)
    assert np.isfinite(rescaled.log_snr(np.arange(T))).all()


@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
def test_with_zero_terminal_snr_the_signal_falls_to_the_end_and_grids_begin_there(beta_schedule):
    schedule = NoiseSchedule(beta_schedule=beta_schedule, rescale_betas_zero_snr=True)
    assert (np.diff(schedule.log_snr(np.arange(T))) < 0).all()
    for grid in (PowerGrid(2), LogSNRGrid(), KarrasGrid(), BlendedGrid()):
        assert grid(schedule, 10)[0] == pytest.approx(T - 1)


def test_conversions_between_predictions_agree():
    schedule = NoiseSchedule()
    x0, eps = mx.random.normal((2, 3, 2, 2, 1), key=mx.random.key(0))
    t = np.array([10.0, 400.5, 900.0])
    x_t, v = schedule.add_noise(x0, eps, t), schedule.velocity(x0, eps, t)
    scales = [mx.array(scale(t).reshape(-1, 1, 1, 1), mx.float32) for scale in (schedule.alpha, schedule.sigma)]
    for prediction, kind in ((eps, "epsilon"), (v, "v_prediction"), (x0, "sample")):
        np.testing.assert_allclose(x0_from(prediction, x_t, *scales, kind), x0, atol=1e-4)
    alpha, sigma = float(schedule.alpha(500)), float(schedule.sigma(500))
    x_t, v = schedule.add_noise(x0, eps, 500), schedule.velocity(x0, eps, 500)
    for prediction, kind in ((eps, "epsilon"), (v, "v_prediction"), (x0, "sample")):
        np.testing.assert_allclose(x0_from(prediction, x_t, alpha, sigma, kind), x0, atol=1e-4)
        np.testing.assert_allclose(eps_from(prediction, x_t, alpha, sigma, kind), eps, atol=1e-4)


def test_one_timestep_per_picture_is_the_same_as_one_at_a_time():
    schedule = NoiseSchedule()
    x0, eps = mx.random.normal((2, 3, 2, 2, 1), key=mx.random.key(0))
    together = schedule.add_noise(x0, eps, [3, 333.25, 999])
    for i, t in enumerate([3, 333.25, 999]):
        np.testing.assert_allclose(together[i], schedule.add_noise(x0[i], eps[i], t), atol=1e-6)


def test_half_precision_pictures_stay_half_precision():
    x = mx.zeros((2, 2, 2, 1), mx.float16)
    assert NoiseSchedule().add_noise(x, x, [1, 2]).dtype == NoiseSchedule().add_noise(x, x, 1).dtype == mx.float16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_train_timesteps": 1}, "num_train_timesteps must be a whole number, between 2 and"),
        ({"num_train_timesteps": 10.5}, "num_train_timesteps must be a whole number"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps must be a whole number"),
        (
            {"beta_schedule": "cosine"},
            "beta_schedule must be one of linear, scaled_linear, squaredcos_cap_v2, got",
        ),
        ({"beta_start": 0.03}, "betas must satisfy 0 < beta_start <= beta_end < 1, got 0.03 and 0.02"),
        ({"beta_start": "small"}, "beta_start must be a number"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas must be 1000 numbers between 0 and 1"),
        ({"trained_betas": [0.0] * 1000}, "trained_betas must be 1000 numbers between 0 and 1"),
        (
            {"num_train_timesteps": 100_000},
            "leave something of an image at the last one; here alpha.2 goes from 0.9999 to",
        ),
        ({"beta_start": 1e-20}, "the betas must add noise at every timestep"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoiseSchedule(**arguments)


@pytest.mark.parametrize("t", [-1, 1000, float("nan"), [0, 1, 5000]])
def test_timesteps_outside_the_schedule_are_refused(t):
    x = mx.zeros((3, 2, 2, 1))
    with pytest.raises(ValueError, match=r"timesteps must lie in \[0, 999\]"):
        NoiseSchedule().add_noise(x, x, t)


def test_a_wrong_number_of_timesteps_is_refused():
    x = mx.zeros((3, 2, 2, 1))
    with pytest.raises(ValueError, match=r"one per image \(3\), got shape \(2,\)"):
        NoiseSchedule().add_noise(x, x, [1, 2])
