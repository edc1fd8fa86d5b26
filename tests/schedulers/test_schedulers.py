"""DDPM, DDIM and DPM-Solver++: truth on Gaussian data, conventions, and the faults that such code is known for."""

from __future__ import annotations

import json
import warnings

import mlx.core as mx
import numpy as np
import pytest
from gaussian import STD, ode_solution, output_std, run

from adaptive_diffusion.diffusion.rng import image_keys
from adaptive_diffusion.schedulers.classes import DDIMScheduler, DDPMScheduler, DPMSolverScheduler
from adaptive_diffusion.schedulers.unipc_ipndm import UniPCScheduler
from adaptive_diffusion.solvers.dpm_solver import multistep_weights
from adaptive_diffusion.types import SchedulerOutput

T = 1000
ALL = (DDPMScheduler, DDIMScheduler, DPMSolverScheduler)
SPACINGS = ("leading", "linspace", "trailing")
SDE = {"algorithm_type": "sde-dpmsolver++"}
X = np.random.default_rng(0).standard_normal((4, 2, 2, 1))

pytestmark = pytest.mark.filterwarnings("ignore:timestep_spacing='leading' with 1 step")


def zeros(shape=(2, 4, 4, 3), dtype=mx.float32) -> mx.array:
    return mx.zeros(shape, dtype)


# --- accuracy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: DDIMScheduler(clip_sample=False, set_alpha_to_one=False), 1),
        *[
            (lambda k=k, s=s: DPMSolverScheduler(solver_order=k, solver_type=s, final_sigmas_type="sigma_min"), order)
            for k, s, order in (
                (1, "midpoint", 1),
                (2, "midpoint", 2),
                (2, "heun", 2),
                (3, "midpoint", 2),
                (3, "adams", 3),
            )
        ],
    ],
    ids=["ddim", "dpm1", "dpm2m-midpoint", "dpm2m-heun", "dpm3m-published", "dpm3m-adams"],
)
def test_error_falls_with_the_order_of_the_solver(build, expected):
    """Halving the steps in log-SNR divides the error by 2^order. (The published 3M is of order 2, see multistep.)"""
    errors = []
    for n in (40, 80, 160):
        scheduler = build()
        ends = scheduler.schedule.log_snr([T - 1, 0])
        scheduler.set_timesteps(timesteps=scheduler.schedule.timestep(np.linspace(*ends, n + 1))[:-1])
        y = run(scheduler, X, dtype=mx.float64, mean=0.3)
        errors.append(np.sqrt(np.mean((y - ode_solution(scheduler, X, 0, mean=0.3)) ** 2)))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > expected - 0.3).all(), orders
    assert expected == 3 or (orders < expected + 0.3).all(), orders


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("build", [DDIMScheduler, DPMSolverScheduler])
def test_every_prediction_type_leads_to_the_solution_of_the_ode(build, prediction_type):
    scheduler = build(clip_sample=False, prediction_type=prediction_type, timestep_spacing="linspace")
    scheduler.set_timesteps(1000)
    y = run(scheduler, X, dtype=mx.float64, mean=0.3)
    np.testing.assert_allclose(y, ode_solution(scheduler, X, None, mean=0.3), atol=0.01)


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize(("order", "solver_type"), [(1, "heun"), (2, "heun"), (2, "adams"), (3, "adams")])
def test_a_step_of_order_k_is_exact_for_a_prediction_polynomial_in_log_snr(order, solver_type, stochastic):
    """Degree k - 1, against numerical integration of q e^(-q (h - u)) D(u), q = 1 for the ODE and 2 for the SDE."""
    log_snrs = [-2.0, -1.3, -0.9, 0.1][3 - order :]
    q, h = 1 + stochastic, log_snrs[-1] - log_snrs[-2]
    u = (np.arange(200_000) + 0.5) / 200_000 * h
    _, weights = multistep_weights(log_snrs, solver_type, stochastic)
    for degree in range(order):
        truth = h * np.mean(q * np.exp(-q * (h - u)) * u**degree)
        nodes = np.array(log_snrs[-2::-1]) - log_snrs[-2]
        assert np.dot(weights, nodes**degree) == pytest.approx(truth, abs=1e-8)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    "build",
    [
        lambda s: DDIMScheduler(clip_sample=False, timestep_spacing=s),
        lambda s: DDIMScheduler(clip_sample=False, timestep_spacing=s, eta=1.0),
        lambda s: DDPMScheduler(clip_sample=False, timestep_spacing=s),
        lambda s: DPMSolverScheduler(timestep_spacing=s, solver_order=1),
        lambda s: DPMSolverScheduler(timestep_spacing=s),
        lambda s: DPMSolverScheduler(timestep_spacing=s, solver_order=3),
        lambda s: DPMSolverScheduler(timestep_spacing=s, **SDE),
    ],
    ids=["ddim", "ddim-eta1", "ddpm", "dpm1", "dpm2", "dpm3", "sde2"],
)
def test_output_std_approaches_that_of_the_data_as_steps_increase(build, spacing):
    """Known faults: a std that grows with N, noise left at the end, steps to timesteps that are not on the grid."""
    scheduler, errors = build(spacing), []
    for n in (5, 10, 20, 50, 200):
        scheduler.set_timesteps(n)
        errors.append(abs(output_std(scheduler) - STD))
    assert errors == sorted(errors, reverse=True) or max(errors[2:]) < 0.04
    assert errors[-1] < 0.02


@pytest.mark.parametrize("spacing", SPACINGS)
def test_ddpm_at_all_timesteps_draws_the_data(spacing):
    for variance_type in ("fixed_small", "fixed_large"):
        scheduler = DDPMScheduler(clip_sample=False, timestep_spacing=spacing, variance_type=variance_type)
        scheduler.set_timesteps(T)
        assert output_std(scheduler) == pytest.approx(STD, abs=0.004)


def test_ddpm_step_is_the_posterior_of_bayes_rule():
    """q(x_s | x_t, x0) from the two Gaussians N(x_s; alpha_s x0, sigma_s^2) and N(x_t; a x_s, 1 - a^2 ...)."""
    scheduler = DDPMScheduler(prediction_type="sample", clip_sample=False)
    scheduler.set_timesteps(timesteps=[800, 350])
    schedule, x_t, x0 = scheduler.schedule, 0.7, -0.4
    a = schedule.alpha(800) / schedule.alpha(350)
    forward_variance = schedule.sigma(800) ** 2 - a**2 * schedule.sigma(350) ** 2
    precision = 1 / schedule.sigma(350) ** 2 + a**2 / forward_variance
    mean = (schedule.alpha(350) * x0 / schedule.sigma(350) ** 2 + a * x_t / forward_variance) / precision
    one = mx.ones((1, 1, 1, 1))
    low, high = (scheduler.step(x0 * one, 800, x_t * one, noise=z * one).item() for z in (-1.0, 1.0))
    assert (low + high) / 2 == pytest.approx(mean, abs=1e-6)
    assert (high - low) / 2 == pytest.approx(precision**-0.5, abs=1e-6)


# --- known faults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 20, 50, 100])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("final", [{}, {"final_sigmas_type": "sigma_min"}, {"lower_order_final": False}, SDE])
def test_dpm_solver_orders_2_and_3_are_finite(order, n, final):
    scheduler = DPMSolverScheduler(solver_order=order, **final)
    scheduler.set_timesteps(n)
    assert np.isfinite(run(scheduler, X, lambda _: X)).all()


def test_dpm_solver_second_order_uses_the_ratio_of_the_steps():
    """D + h / (2 h_prev) (D - D_prev): the factor 1 / r0 of DPM-Solver++(2M)."""
    _, (newest, oldest) = multistep_weights([0.0, 0.5, 2.5])
    scale = 1 - np.exp(-2.0)
    assert newest == pytest.approx(scale * (1 + 2.0))
    assert oldest == pytest.approx(scale * -2.0)


@pytest.mark.parametrize(
    "timesteps",
    [[999, 600, 200, 10], *[[float(t) for t in np.linspace(999, 0, n)] for n in (6, 7)], [999, 998.5, 0.25]],
)
def test_ddim_steps_to_its_neighbour_on_the_grid(timesteps):
    """Not to t - T // N, as diffusers does, which is off the grid for linspace, trailing and custom timesteps."""
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(timesteps=timesteps)
    eps, x = np.full((1, 1, 1, 1), 0.3), np.full((1, 1, 1, 1), 0.8)
    for t, s in zip(timesteps, [*timesteps[1:], None], strict=True):
        alpha, sigma = (1, 0) if s is None else (scheduler.schedule.alpha(s), scheduler.schedule.sigma(s))
        x0 = (x - scheduler.schedule.sigma(t) * eps) / scheduler.schedule.alpha(t)
        y = scheduler.step(mx.array(eps, mx.float32), t, mx.array(x, mx.float32)).item()
        assert y == pytest.approx(float(np.squeeze(alpha * x0 + sigma * eps)), rel=1e-4)


@pytest.mark.parametrize("build", ALL)
def test_the_last_step_returns_the_clean_prediction(build):
    """No noise is left at the end: known faults are alpha_prev = alpha_bar[0], and noise added in the last step."""
    for arguments in ({"timestep_spacing": s} for s in SPACINGS):
        scheduler = build(**arguments)
        scheduler.set_timesteps(7)
        x = mx.array(X, mx.float32)
        output = scheduler.step(0.3 * x, scheduler.timesteps[-1], x, return_dict=True)
        assert isinstance(output, SchedulerOutput)
        np.testing.assert_allclose(output.prev_sample, output.pred_original_sample, atol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("build", ALL)
def test_no_grid_merges_two_timesteps(build, spacing):
    """Rounding to integers must not cost a step, nor give a multistep solver a step of length 0."""
    scheduler = build(timestep_spacing=spacing)
    for n in (1, 2, 3, 5, 7, 333, 499, 501, 700, 998, 999, 1000):
        scheduler.set_timesteps(n)
        assert len(scheduler) == len(scheduler.timesteps) == scheduler.num_inference_steps == n
        assert scheduler.timesteps[-1] >= 0
        assert scheduler.timesteps[0] <= T - 1
        assert (np.diff(scheduler.timesteps) < 0).all()
        if n <= 333:
            assert (scheduler.timesteps == np.round(scheduler.timesteps)).all()


@pytest.mark.parametrize(
    ("build", "arguments"),
    [
        *[(build, {"timestep_spacing": spacing}) for build in ALL for spacing in SPACINGS],
        (DPMSolverScheduler, {"use_karras_sigmas": True}),
        (DPMSolverScheduler, {"use_lu_lambdas": True, "solver_order": 3}),
    ],
)
def test_all_training_timesteps_can_be_used(build, arguments):
    scheduler = build(clip_sample=False, **arguments)
    scheduler.set_timesteps(T)
    y = run(scheduler, X, lambda _: np.zeros_like(X))
    assert np.isfinite(y).all()
    if build is not DDPMScheduler:
        np.testing.assert_allclose(y, ode_solution(scheduler, X, None), atol=0.01)


def test_linspace_with_one_step_starts_at_the_noise():
    """diffusers evaluates that one step at t = 0, which returns the noise."""
    for build in ALL:
        scheduler = build(timestep_spacing="linspace")
        scheduler.set_timesteps(1)
        assert scheduler.timesteps.tolist() == [T - 1]


def test_leading_with_one_step_warns():
    with pytest.warns(UserWarning, match="evaluates the model at t = 0 only"):
        DDIMScheduler().set_timesteps(1)


def test_timesteps_are_values_not_positions():
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(10)
    with pytest.raises(ValueError, match="timestep 3 is not one of the 10 timesteps from 900 to 0: pass an element of"):
        scheduler.step(zeros(), 3, zeros())


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_scheduler_can_be_used_again(order):
    """State reset: with set_timesteps, and without it by starting over at the first timestep, even half-way."""
    scheduler = DPMSolverScheduler(solver_order=order)
    scheduler.set_timesteps(8)
    first = run(scheduler, X)
    np.testing.assert_array_equal(run(scheduler, X), first)
    for t in scheduler.timesteps[:3]:
        scheduler.step(mx.array(X, mx.float32), t, mx.array(X, mx.float32))
    np.testing.assert_array_equal(run(scheduler, X), first)
    scheduler.set_timesteps(5)
    run(scheduler, X[:2])
    scheduler.set_timesteps(8)
    np.testing.assert_array_equal(run(scheduler, X), first)


@pytest.mark.parametrize("build", ALL)
def test_sampling_may_begin_in_the_middle(build):
    """As for image-to-image: the first step from there is of first order, and nothing runs out of range."""
    scheduler, tail = build(clip_sample=False), build(clip_sample=False)
    scheduler.set_timesteps(20)
    tail.set_timesteps(timesteps=scheduler.timesteps[12:])
    x = mx.array(X, mx.float32)
    noise = mx.zeros(x.shape)
    y = z = x
    for t in scheduler.timesteps[12:]:
        y = scheduler.step(mx.tanh(y), t, y, noise=noise)
        z = tail.step(mx.tanh(z), t, z, noise=noise)
    np.testing.assert_allclose(y, z, atol=1e-6)


def test_timesteps_that_went_through_float32_are_found():
    scheduler = DPMSolverScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(30)
    for t in mx.array(scheduler.timesteps, mx.float32):
        scheduler.step(zeros(), t, zeros())


def test_custom_timesteps_replace_every_spacing():
    for arguments in ({"timestep_spacing": "trailing"}, {"use_karras_sigmas": True}, {"use_lu_lambdas": True}):
        scheduler = DPMSolverScheduler(**arguments)
        scheduler.set_timesteps(timesteps=[900, 500.5, 1e-3])
        assert scheduler.timesteps.tolist() == [900, 500.5, 1e-3]


def test_timesteps_that_float64_cannot_tell_apart_do_no_harm():
    scheduler = DPMSolverScheduler(solver_order=3)
    scheduler.set_timesteps(timesteps=[999, 500, 1e-25, 1e-26, 1e-27, 1e-28])
    assert np.isfinite(run(scheduler, X)).all()


def test_zero_terminal_snr_samples_with_trailing_v_prediction():
    scheduler = DPMSolverScheduler(
        rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(50)
    np.testing.assert_allclose(run(scheduler, X, dtype=mx.float64), ode_solution(scheduler, X, None), atol=0.01)


def test_forward_noise_does_not_depend_on_the_inference_grid():
    x, noise = mx.array(X, mx.float32), mx.ones(X.shape)
    scheduler = DPMSolverScheduler()
    before = scheduler.add_noise(x, noise, [1, 20, 300, 999])
    scheduler.set_timesteps(5)
    np.testing.assert_array_equal(scheduler.add_noise(x, noise, mx.array([1, 20, 300, 999])), before)
    with pytest.raises(ValueError, match="timesteps must lie in"):
        scheduler.add_noise(x, noise, 1000)


# --- randomness, batches, dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [DDPMScheduler, lambda: DDIMScheduler(eta=0.5), lambda: DPMSolverScheduler(**SDE)],
    ids=["ddpm", "ddim", "sde"],
)
def test_a_picture_does_not_depend_on_its_batch(build):
    keys = image_keys(3, range(8))
    x = mx.random.normal((8, 4, 4, 3), key=mx.random.key(1))
    together, alone = build(), build()
    for scheduler in (together, alone):
        scheduler.set_timesteps(4)
    y, z = x, x[5:6]
    for t in together.timesteps:
        y = together.step(mx.tanh(y), t, y, key=keys)
        z = alone.step(mx.tanh(z), t, z, key=keys[5:6])
    np.testing.assert_allclose(y[5:6], z, atol=1e-6)


def test_a_key_gives_the_noise_it_always_gives():
    scheduler, key = DDPMScheduler(), mx.random.key(7)
    scheduler.set_timesteps(10)
    noise = mx.random.normal((2, 4, 4, 3), key=key)
    with_key = scheduler.step(zeros(), 500, zeros(), key=key)
    np.testing.assert_array_equal(with_key, scheduler.step(zeros(), 500, zeros(), noise=noise))
    assert not np.array_equal(with_key, scheduler.step(zeros(), 500, zeros(), key=mx.random.key(8)))


@pytest.mark.parametrize("build", [DDPMScheduler, lambda: DDIMScheduler(eta=0.1), lambda: DPMSolverScheduler(**SDE)])
def test_a_stochastic_step_asks_for_its_noise(build):
    scheduler = build()
    scheduler.set_timesteps(4)
    t, x = scheduler.timesteps[0], zeros()
    with pytest.raises(ValueError, match="adds noise here: pass either key or noise to step"):
        scheduler.step(x, t, x)
    with pytest.raises(ValueError, match="adds noise here: pass either key or noise to step"):
        scheduler.step(x, t, x, key=mx.random.key(0), noise=x)
    with pytest.raises(ValueError, match=r"key must have shape \(2,\), or \(2, 2\) for 2 images, got \(3, 2\)"):
        scheduler.step(x, t, x, key=image_keys(0, range(3)))
    with pytest.raises(ValueError, match="noise must have the shape of the sample"):
        scheduler.step(x, t, x, noise=x[:1])
    again = build()
    again.set_timesteps(4)
    for t in scheduler.timesteps:  # the refused steps left no trace
        np.testing.assert_array_equal(scheduler.step(x + 1, t, x, noise=x), again.step(x + 1, t, x, noise=x))
    scheduler.step(x, scheduler.timesteps[-1], x)  # the last step adds none


@pytest.mark.parametrize("indices", [[0, 3], [False, True, False, True]])
def test_select_follows_the_pictures_that_stay(indices):
    scheduler, whole = DPMSolverScheduler(solver_order=3), DPMSolverScheduler(solver_order=3)
    x = y = mx.array(X, mx.float32)
    kept = np.flatnonzero(indices) if isinstance(indices[0], bool) else np.array(indices)
    for s in (scheduler, whole):
        s.set_timesteps(20)
    for i, t in enumerate(scheduler.timesteps):
        if i == 6:
            scheduler.select(np.array(indices))
            x = x[mx.array(kept)]
        x, y = scheduler.step(mx.tanh(x), t, x), whole.step(mx.tanh(y), t, y)
    np.testing.assert_allclose(x, y[mx.array(kept)], atol=1e-6)


@pytest.mark.parametrize("indices", [[0, 4], [True, False]])
def test_pictures_that_are_not_there_cannot_stay(indices):
    scheduler = DPMSolverScheduler()
    scheduler.set_timesteps(5)
    x = mx.array(X, mx.float32)
    scheduler.step(x, scheduler.timesteps[0], x)
    with pytest.raises(IndexError):
        scheduler.select(np.array(indices))


def test_pictures_that_leave_without_select_are_noticed():
    scheduler = DPMSolverScheduler()
    scheduler.set_timesteps(20)
    first, second = scheduler.timesteps[:2]
    scheduler.step(zeros(), first, zeros())
    with pytest.raises(ValueError, match="call select when images leave the batch"):
        scheduler.step(zeros()[:1], second, zeros()[:1])


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
@pytest.mark.parametrize("build", ALL)
def test_dtype_of_the_sample_is_kept(build, dtype):
    scheduler = build(thresholding=True)
    scheduler.set_timesteps(5)
    x = zeros(dtype=dtype)
    for t in scheduler.timesteps:
        output = scheduler.step(x, t, x, key=mx.random.key(0), return_dict=True)
        assert output.prev_sample.dtype == output.pred_original_sample.dtype == dtype


@pytest.mark.parametrize("build", [DPMSolverScheduler, UniPCScheduler])
def test_the_order_is_the_first_argument_after_the_models(build):
    scheduler = build(1000, 3)
    assert (scheduler.solver.order, scheduler.clip_sample, scheduler.timestep_spacing) == (3, False, "linspace")


# --- the clean prediction ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", ALL)
def test_clean_prediction_is_clipped_or_not(build):
    x = mx.array([3.0, -0.2, -9.0, 0.5]).reshape(1, 2, 2, 1)
    assert build(clip_sample=False).limit(x).tolist() == x.tolist()
    clipped = build(clip_sample=True, clip_sample_range=2.0).limit(x)
    assert clipped.flatten().tolist() == pytest.approx([2.0, -0.2, -2.0, 0.5])


def test_dynamic_thresholding_divides_by_the_quantile_of_each_picture():
    """Against NumPy's quantile: 1.75 of |x| for the first image, below the lower bound of 1 for the second."""
    x = np.array([[2.0, -1.0, 0.5, -0.25], [0.4, 0.3, -0.2, 0.1]]).reshape(2, 2, 2, 1)
    scheduler = DDIMScheduler(thresholding=True, dynamic_thresholding_ratio=0.75 + 1 / 6, sample_max_value=5)
    limit = np.quantile(np.abs(x[0]), 0.75 + 1 / 6)
    assert limit == pytest.approx(1.75)
    y = scheduler.limit(mx.array(x, mx.float32))
    np.testing.assert_allclose(y[0], np.clip(x[0], -limit, limit) / limit, atol=1e-6)
    np.testing.assert_allclose(y[1], x[1], atol=1e-6)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.995, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 4, 3)])
def test_thresholding_quantile_is_that_of_numpy(ratio, shape):
    from adaptive_diffusion.diffusion.limits import quantile

    x = np.random.default_rng(0).standard_normal(shape).reshape(shape[0], -1).astype(np.float32)
    np.testing.assert_allclose(quantile(mx.array(x), ratio), np.quantile(x, ratio, axis=1)[:, None], atol=1e-6)


# --- conventions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", ALL)
def test_schedulers_keep_the_protocol(build):
    scheduler = build()
    assert scheduler, "a scheduler without timesteps is not false"
    assert (len(scheduler), scheduler.order, scheduler.init_noise_sigma) == (0, 1, 1.0)
    scheduler.set_timesteps(10)
    assert len(scheduler) == 10
    x = zeros()
    assert scheduler.scale_model_input(x, 5) is x
    assert isinstance(scheduler.step(x, scheduler.timesteps[-1], x), mx.array)


def test_spacings_are_those_of_the_paper():
    """Lin et al., 2024, table 2, with T = 1000 and 10 steps."""
    scheduler = DDIMScheduler(timestep_spacing="leading")
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    scheduler = DDIMScheduler(timestep_spacing="linspace")
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]


def test_karras_and_log_snr_grids_are_equally_spaced_in_their_variable():
    scheduler = DPMSolverScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(9)
    root = np.exp(-scheduler.schedule.log_snr(scheduler.timesteps)) ** (1 / 7)
    np.testing.assert_allclose(np.diff(root), np.diff(root)[0], rtol=1e-6)
    scheduler = DPMSolverScheduler(use_lu_lambdas=True)
    scheduler.set_timesteps(9)
    steps = np.diff(scheduler.schedule.log_snr(scheduler.timesteps))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def test_clipped_log_snr_leaves_the_noisiest_timesteps_out():
    scheduler = DPMSolverScheduler(beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1)
    scheduler.set_timesteps(10)
    assert scheduler.schedule.log_snr(scheduler.timesteps[0]) >= -5.1
    assert scheduler.schedule.log_snr(scheduler.timesteps[0] + 1) < -5.1
    with pytest.raises(ValueError, match="num_inference_steps must be a whole number, between 1 and 9"):
        scheduler.set_timesteps(1000)


@pytest.mark.parametrize("build", ALL)
def test_saved_and_loaded_again_a_scheduler_is_the_same(build, tmp_path):
    scheduler = build(
        num_train_timesteps=np.int64(200),
        trained_betas=np.linspace(0.01, 0.02, 200),
        prediction_type="v_prediction",
        steps_offset=1,
        clip_sample_range=np.float32(2),
    )
    json.dumps(scheduler.schedule.config)
    file = scheduler.save(tmp_path / "new" / "folder")
    assert file.name == "scheduler_config.json"
    assert json.loads(file.read_text())["_class_name"] == build.__name__
    for source in (file, file.parent):
        assert build.load(source).config == scheduler.config
    loaded = build.load(file, prediction_type="sample")
    assert loaded.config == {**scheduler.config, "prediction_type": "sample"}
    np.testing.assert_array_equal(loaded.schedule.alphas_cumprod, scheduler.schedule.alphas_cumprod)


def test_configurations_are_forgiving_about_keys():
    with pytest.warns(UserWarning, match="DDIMScheduler has no argument solver_order, sigma: ignored"):
        scheduler = DDIMScheduler.from_config({"solver_order": 3, "sigma": 1, "eta": 0.2, "_class_name": "Other"})
    assert scheduler.config == {**DDIMScheduler().config, "eta": 0.2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DDIMScheduler.from_config(scheduler).config == scheduler.config
    with pytest.warns(UserWarning, match="has no argument"):
        assert DPMSolverScheduler.from_config(scheduler, solver_order=3).solver_order == 3


def test_a_missing_or_foreign_configuration_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no scheduler configuration at .*scheduler_config\.json"):
        DDIMScheduler.load(tmp_path)
    (tmp_path / "a.json").write_text("[1, 2")
    (tmp_path / "b.json").write_text("[1, 2]")
    for name in ("a.json", "b.json"):
        with pytest.raises(ValueError, match=f"{name} is not a scheduler configuration"):
            DDIMScheduler.load(tmp_path / name)


# --- bad values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", ALL)
@pytest.mark.parametrize("n", [0, -3, 1001, 2.5, "ten", True, float("nan")])
def test_a_bad_number_of_steps_is_refused(build, n):
    with pytest.raises(ValueError, match="num_inference_steps must be a whole number, between 1 and 1000, got"):
        build().set_timesteps(n)


@pytest.mark.parametrize(
    "timesteps",
    [[], [5, 5], [3, 8], [1000], [-0.5], [[3, 2]], ["a"], [float("nan")], 7, None],
)
def test_bad_timesteps_are_refused(timesteps):
    with pytest.raises(ValueError, match=r"timesteps must be a list of strictly decreasing|either num_inference_steps"):
        DDIMScheduler().set_timesteps(timesteps=timesteps)


def test_steps_and_timesteps_together_are_refused():
    with pytest.raises(ValueError, match="either num_inference_steps or timesteps"):
        DDIMScheduler().set_timesteps(3, timesteps=[3, 2, 1])


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (DDIMScheduler, {"prediction_type": "flow"}, "prediction_type must be one of epsilon, v_prediction, sample"),
        (DDIMScheduler, {"timestep_spacing": "even"}, "timestep_spacing must be one of leading, linspace, trailing"),
        (DDIMScheduler, {"eta": 1.5}, "eta must be a number, at least 0 and at most 1, got 1.5"),
        (DDIMScheduler, {"eta": float("nan")}, "eta must be a number"),
        (DDIMScheduler, {"clip_sample": "no"}, "clip_sample must be true or false, got 'no'"),
        (DDIMScheduler, {"clip_sample_range": 0}, "clip_sample_range must be a number, greater than 0, got 0"),
        (DDIMScheduler, {"dynamic_thresholding_ratio": 2}, "dynamic_thresholding_ratio must be a number"),
        (DDIMScheduler, {"sample_max_value": 0.5}, "sample_max_value must be a number, at least 1"),
        (DDIMScheduler, {"steps_offset": -1}, "steps_offset must be a whole number, at least 0"),
        (DDPMScheduler, {"variance_type": "learned"}, "variance_type must be one of fixed_small, fixed_large"),
        (DPMSolverScheduler, {"solver_order": 4}, "solver_order must be a whole number, between 1 and 3, got 4"),
        (DPMSolverScheduler, {"algorithm_type": "dpmsolver"}, "algorithm_type must be one of"),
        (DPMSolverScheduler, {"solver_type": "bh2"}, "solver_type must be one of midpoint, heun, adams"),
        (DPMSolverScheduler, {"final_sigmas_type": "one"}, "final_sigmas_type must be one of zero, sigma_min"),
        (DPMSolverScheduler, {"lambda_min_clipped": 50.0}, "lambda_min_clipped must be a number"),
        (DPMSolverScheduler, {"use_karras_sigmas": True, "use_lu_lambdas": True}, "exclude each other"),
    ],
)
def test_bad_arguments_get_one_sentence(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_an_offset_past_the_last_timestep_is_refused():
    with pytest.raises(
        ValueError, match="steps_offset 1 with 1000 leading steps starts at timestep 1000, past the last"
    ):
        DDIMScheduler(steps_offset=1).set_timesteps(1000)


def test_steps_before_set_timesteps_and_shapes_that_differ_are_refused():
    scheduler = DDIMScheduler()
    with pytest.raises(ValueError, match="call set_timesteps first"):
        scheduler.step(zeros(), 0, zeros())
    scheduler.set_timesteps(10)
    with pytest.raises(ValueError, match="they must agree"):
        scheduler.step(zeros((2, 4, 4, 6)), 0, zeros())
    with pytest.raises(ValueError, match="timestep must be one number for the whole batch"):
        scheduler.step(zeros(), mx.array([0, 100]), zeros())


def test_timesteps_that_went_through_float32_are_known_whatever_their_size():
    scheduler = UniPCScheduler(num_train_timesteps=200_000, beta_start=1e-7, beta_end=1e-4)
    scheduler.set_timesteps(timesteps=scheduler.schedule.timestep(np.linspace(-4, 4, 9)))
    x = mx.ones((1, 2, 2, 1))
    for t in scheduler.timesteps.astype(np.float32):
        x = scheduler.step(0.1 * x, t, x)


def test_betas_of_mlx_survive_the_file(tmp_path):
    betas = mx.linspace(1e-4, 0.02, 100)
    scheduler = DDIMScheduler(num_train_timesteps=100, trained_betas=betas)
    again = DDIMScheduler.load(scheduler.save(tmp_path))
    np.testing.assert_allclose(again.schedule.alphas_cumprod, scheduler.schedule.alphas_cumprod)


def test_images_of_numpy_get_noise_of_a_timestep_each():
    x, noise = np.random.default_rng(0).standard_normal((2, 2, 4, 4, 3)).astype(np.float32)
    ours, expected = (DDIMScheduler().add_noise(a(x), a(noise), [10, 900]) for a in (np.array, mx.array))
    assert mx.array_equal(ours, expected)
