"""UniPC and iPNDM: truth on Gaussian data, the weights, conventions, grids, and images that leave the batch."""

from __future__ import annotations

import inspect

import mlx.core as mx
import numpy as np
import pytest
from gaussian import STD, ode_solution, output_std, predict, run

from adaptive_diffusion.grids.spacings import KarrasGrid, LogSNRGrid, PowerGrid
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.sampling.starts import set_timesteps
from adaptive_diffusion.schedulers.classes import DPMSolverScheduler
from adaptive_diffusion.schedulers.unipc_ipndm import IPNDMScheduler, UniPCScheduler
from adaptive_diffusion.solvers.dpm_solver import multistep_weights
from adaptive_diffusion.solvers.unipc import unipc_weights
from adaptive_diffusion.types import SchedulerOutput

T = 1000
GRIDS = [None, PowerGrid(1), PowerGrid(2), LogSNRGrid(), KarrasGrid()]
FORMS = [(1, "bh2"), (2, "bh1"), (2, "bh2"), (3, "bh2")]
SOLVERS = [
    *[pytest.param((UniPCScheduler, {"solver_order": k, "solver_type": b}), id=f"unipc{k}-{b}") for k, b in FORMS],
    pytest.param((IPNDMScheduler, {}), id="ipndm"),
]
X = np.random.default_rng(0).standard_normal((4, 2, 2, 1))

solvers = pytest.mark.parametrize("solver", SOLVERS)
pytestmark = pytest.mark.filterwarnings("ignore:timestep_spacing='leading' with 1 step")


def built(solver, **arguments):
    cls, own = solver
    return cls(**own, **arguments)


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


# --- accuracy ---------------------------------------------------------------------------------------------------------


def equal_log_snr_steps(scheduler, n: int) -> np.ndarray:
    """n + 1 timesteps, from T - 1 to 0."""
    return scheduler.schedule.timestep(np.linspace(*scheduler.schedule.log_snr([T - 1, 0]), n + 1))


@pytest.mark.parametrize("form", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_corrector_raises_the_order_of_unipc_by_one(order, form):
    """In float64. Order 3 starts with steps of lower order, so that less than 4 may be left of it."""
    errors = []
    for n in (40, 80, 160):
        scheduler = UniPCScheduler(
            solver_order=order, solver_type=form, final_sigmas_type="sigma_min", lower_order_final=False
        )
        scheduler.set_timesteps(timesteps=equal_log_snr_steps(scheduler, n)[:-1])
        errors.append(rms(run(scheduler, X, dtype=mx.float64, mean=0.3) - ode_solution(scheduler, X, 0, mean=0.3)))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > order + (0.7 if order < 3 else 0.2)).all(), orders
    assert (orders < order + 1.3).all(), orders


def test_ipndm_converges_with_order_2():
    """Up to timestep 0, in float64; its coefficients are those of equal steps, which these are not."""
    errors = []
    for n in (40, 80, 160):
        scheduler, x = IPNDMScheduler(), X
        scheduler.set_timesteps(timesteps=equal_log_snr_steps(scheduler, n))
        with mx.stream(mx.cpu):
            for t in scheduler.timesteps[:-1]:
                prediction = mx.array(predict(scheduler, t, x, mean=0.3), mx.float64)
                x = np.array(scheduler.step(prediction, t, mx.array(x, mx.float64)))
        errors.append(rms(x - ode_solution(scheduler, X, 0, mean=0.3)))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(orders - 2) < 0.2).all(), orders


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@solvers
def test_every_prediction_type_leads_to_the_solution_of_the_ode(solver, prediction_type):
    scheduler = built(solver, prediction_type=prediction_type)
    scheduler.set_timesteps(T)
    y = run(scheduler, X, dtype=mx.float64, mean=0.3)
    np.testing.assert_allclose(y, ode_solution(scheduler, X, None, mean=0.3), atol=0.01)


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
@solvers
def test_every_grid_converges_to_the_exact_solution(solver, grid):
    scheduler, errors = built(solver), []
    for n in (10, 40, 160):
        set_timesteps(scheduler, grid, scheduler.schedule, n)
        errors.append(np.abs(run(scheduler, X) - ode_solution(scheduler, X, None)).max())
    assert errors[1] < errors[0] / 2
    assert errors[2] < max(errors[1] / 2, 2e-3)  # the last step is of order 1, and its size is that of the grid
    assert errors[2] < 0.01


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@solvers
def test_output_std_approaches_that_of_the_data_as_steps_increase(solver, spacing):
    scheduler, errors = built(solver, timestep_spacing=spacing), []
    for n in (5, 10, 20, 50, 200):
        scheduler.set_timesteps(n)
        errors.append(abs(output_std(scheduler) - STD))
    assert errors == sorted(errors, reverse=True) or max(errors[2:]) < 0.04
    assert errors[-1] < 0.02


# --- the weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-7, 1e-3, 0.3, 1.0, 5.0])
@pytest.mark.parametrize(("order", "corrector"), [(3, False), (2, True), (3, True)])
def test_weights_integrate_polynomials_in_log_snr_exactly(order, corrector, scale):
    """Against numerical integration of e^(-(h - u)) (u / h)^n; steps of any length, very short ones included."""
    log_snrs = scale * np.array([-2.0, -1.3, -0.9, 0.1])[3 - order :]
    h = log_snrs[-1] - log_snrs[-2]
    v = (np.arange(100_000) + 0.5) / 100_000
    weights = unipc_weights(log_snrs, corrector=corrector)
    places = (log_snrs[-2::-1] - log_snrs[-2]) / h
    places = np.append(1.0, places) if corrector else places
    assert len(weights) == len(places) == order + corrector
    for degree in range(order + corrector):
        truth = h * np.mean(np.exp(-h * (1 - v)) * v**degree)
        assert np.dot(weights, places**degree) == pytest.approx(truth, rel=1e-8)


def test_the_predictors_are_those_of_dpm_solver():
    """UniP of order 2 with bh2 is DPM-Solver++(2M), of order 3 the exponential Adams-Bashforth step."""
    log_snrs = [-2.0, -1.3, -0.9, 0.1]
    for k, ours in ((1, "midpoint"), (2, "midpoint"), (3, "adams")):
        assert unipc_weights(log_snrs[3 - k :]) == pytest.approx(multistep_weights(log_snrs[3 - k :], ours)[1])


def test_the_published_simplifications():
    """Half of B(h) for the difference of two predictions: h (bh1) or 1 - e^-h (bh2); order 3 does not depend on it."""
    total = 1 - np.exp(-2.0)
    assert unipc_weights([0.0, 2.0], "bh2", corrector=True) == pytest.approx([total / 2, total / 2])
    assert unipc_weights([0.0, 2.0], "bh1", corrector=True) == pytest.approx([1.0, total - 1.0])
    assert unipc_weights([0.0, 0.5, 2.5], "bh2") == pytest.approx([total * 3, total * -2])
    assert unipc_weights([0.0, 0.5, 2.5], "bh1") == pytest.approx([total + 4, -4])
    for corrector in (False, True):
        both = [unipc_weights([0.0, 0.5, 1.0, 2.5], form, corrector) for form in ("bh1", "bh2")]
        assert both[0] == both[1]


@pytest.mark.parametrize("form", ["bh1", "bh2"])
@pytest.mark.parametrize("corrector", [False, True])
def test_timesteps_that_float64_cannot_tell_apart_do_no_harm(corrector, form):
    assert unipc_weights([1.0, 1.0, 1.0, 2.0], form, corrector)[-2:] == unipc_weights([1.0, 2.0], form, corrector)[-2:]
    assert not np.any(unipc_weights([0.0, 1.0, 2.0, 2.0], form, corrector))
    scheduler = UniPCScheduler(solver_order=3, solver_type=form)
    scheduler.set_timesteps(timesteps=[999, 500, 1e-25, 1e-26, 1e-27, 1e-28])
    assert np.isfinite(run(scheduler, X)).all()


def test_ipndm_is_adams_bashforth_in_x_over_alpha():
    """Its first five steps, written out in NumPy."""
    scheduler = IPNDMScheduler()
    scheduler.set_timesteps(20)
    schedule, t = scheduler.schedule, scheduler.timesteps
    s = np.exp(-schedule.log_snr(t))
    xh, eps, x = X / schedule.alpha(t[0]), [], X
    for i, c in enumerate(
        [[1], [1.5, -0.5], [23 / 12, -16 / 12, 5 / 12], *[[55 / 24, -59 / 24, 37 / 24, -9 / 24]] * 2]
    ):
        eps.insert(0, predict(scheduler, t[i], xh * schedule.alpha(t[i])))
        xh = xh + (s[i + 1] - s[i]) * sum(a * e for a, e in zip(c, eps, strict=False))
        with mx.stream(mx.cpu):
            prediction = mx.array(predict(scheduler, t[i], x), mx.float64)
            x = np.array(scheduler.step(prediction, t[i], mx.array(x, mx.float64)))
        np.testing.assert_allclose(x, xh * schedule.alpha(t[i + 1]), rtol=1e-9)


# --- conventions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("grid", GRIDS, ids=repr)
@solvers
def test_any_grid_leads_to_the_clean_picture(solver, grid, n):
    """Data of one image, which is the clean prediction everywhere, is where every solver ends."""
    scheduler = built(solver)
    set_timesteps(scheduler, grid, scheduler.schedule, n)
    assert len(scheduler) == n
    np.testing.assert_allclose(run(scheduler, X, std=1e-9, mean=0.25), 0.25, atol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"clip_sample": True},
        {"thresholding": True},
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "leading"},
    ],
    ids=lambda a: ",".join(a) or "plain",
)
@solvers
def test_any_number_of_steps_is_finite(solver, arguments, prediction_type, n):
    scheduler = built(solver, prediction_type=prediction_type, **arguments)
    scheduler.set_timesteps(n)
    assert np.isfinite(run(scheduler, X)).all()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("form", ["bh1", "bh2"])
def test_unipc_ends_are_finite(n, final, lower, form):
    """bh1 with final sigma zero is NaN in diffusers."""
    scheduler = UniPCScheduler(solver_order=3, solver_type=form, final_sigmas_type=final, lower_order_final=lower)
    scheduler.set_timesteps(n)
    assert np.isfinite(run(scheduler, X)).all()


@solvers
def test_the_last_step_returns_the_clean_prediction(solver):
    scheduler, x = built(solver), mx.array(X, mx.float32)
    scheduler.set_timesteps(7)
    for t in scheduler.timesteps:
        output = scheduler.step(mx.tanh(x), t, x, return_dict=True)
        assert isinstance(output, SchedulerOutput)
        x = output.prev_sample
    np.testing.assert_allclose(x, output.pred_original_sample, atol=1e-6)


@solvers
def test_a_solver_is_a_deterministic_scheduler_of_one_evaluation_per_step(solver):
    scheduler, calls = built(solver), []
    assert (scheduler.stochastic, scheduler.order, scheduler.init_noise_sigma) == (False, 1, 1.0)
    assert type(scheduler).from_config(scheduler.config).config == scheduler.config
    assert set(scheduler.config) == set(inspect.signature(type(scheduler)).parameters)
    scheduler.set_timesteps(6)
    x = mx.array(X, mx.float32)
    result = StandardSampler(scheduler).run(lambda x, t, _: (calls.append(t.tolist()), mx.tanh(x))[1], x)
    assert len(calls) == 6
    assert result.evaluations.tolist() == [6] * len(X)


@solvers
def test_a_solver_can_be_used_again(solver):
    """State reset: with set_timesteps, and without it by starting over at the first timestep, even half-way."""
    scheduler, x = built(solver), mx.array(X, mx.float32)
    scheduler.set_timesteps(8)
    first = run(scheduler, X)
    np.testing.assert_array_equal(run(scheduler, X), first)
    for t in scheduler.timesteps[:3]:
        scheduler.step(x, t, x)
    np.testing.assert_array_equal(run(scheduler, X), first)
    scheduler.set_timesteps(5)
    run(scheduler, X[:2])
    scheduler.set_timesteps(5)
    for t in scheduler.timesteps[:3]:
        scheduler.step(x, t, x)
    scheduler.set_timesteps(8)
    np.testing.assert_array_equal(run(scheduler, X), first)


@solvers
def test_sampling_may_begin_in_the_middle(solver):
    scheduler, tail = built(solver), built(solver)
    scheduler.set_timesteps(20)
    tail.set_timesteps(timesteps=scheduler.timesteps[12:])
    for t in scheduler.timesteps[:4]:
        scheduler.step(mx.ones(X.shape), t, mx.zeros(X.shape))
    y = z = mx.array(X, mx.float32)
    for t in scheduler.timesteps[12:]:
        y, z = scheduler.step(mx.tanh(y), t, y), tail.step(mx.tanh(z), t, z)
        np.testing.assert_allclose(y, z, atol=1e-6)


@pytest.mark.parametrize("indices", [[0, 3], [3, 1, 0], [False, True, False, True]])
@pytest.mark.parametrize("at", [1, 2, 6, 18])
@solvers
def test_select_follows_the_pictures_that_stay(solver, at, indices):
    scheduler, whole = built(solver), built(solver)
    x = y = mx.array(X, mx.float32)
    kept = np.flatnonzero(indices) if isinstance(indices[0], bool) else np.array(indices)
    for s in (scheduler, whole):
        s.set_timesteps(20)
    for i, t in enumerate(scheduler.timesteps):
        if i == at:
            scheduler.select(np.array(indices))
            x = x[mx.array(kept)]
        x, y = scheduler.step(mx.tanh(x), t, x), whole.step(mx.tanh(y), t, y)
    np.testing.assert_allclose(x, y[mx.array(kept)], atol=1e-6)


@solvers
def test_pictures_that_leave_without_select_are_noticed(solver):
    scheduler, x = built(solver), mx.array(X, mx.float32)
    scheduler.set_timesteps(20)
    first, second = scheduler.timesteps[:2]
    y = scheduler.step(x, first, x)
    with pytest.raises(ValueError, match="call select when images leave the batch"):
        scheduler.step(x[:1], second, x[:1])
    expected = built(solver)
    expected.set_timesteps(20)
    expected.step(x, first, x)  # the refused step left no trace
    np.testing.assert_array_equal(scheduler.step(y, second, y), expected.step(y, second, y))


@solvers
def test_a_picture_does_not_depend_on_its_batch(solver):
    x = mx.random.normal((8, 4, 4, 3), key=mx.random.key(1))
    together, alone = built(solver, clip_sample=True), built(solver, clip_sample=True)
    for scheduler in (together, alone):
        scheduler.set_timesteps(6)
    y, z = x, x[5:6]
    for t in together.timesteps:
        y, z = together.step(mx.tanh(y), t, y), alone.step(mx.tanh(z), t, z)
    np.testing.assert_allclose(y[5:6], z, atol=1e-6)


@solvers
def test_steps_use_the_clipped_clean_prediction(solver):
    """A prediction beyond the range is the same as one at its border."""
    far, border = (built(solver, prediction_type="sample", clip_sample=True) for _ in range(2))
    y = z = mx.array(X, mx.float32)
    for scheduler in (far, border):
        scheduler.set_timesteps(6)
    for t in far.timesteps:
        y, z = far.step(9 * mx.sign(y), t, y), border.step(mx.sign(z), t, z)
        np.testing.assert_array_equal(y, z)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
@solvers
def test_dtype_of_the_sample_is_kept(solver, dtype):
    scheduler = built(solver, thresholding=True)
    scheduler.set_timesteps(5)
    x = mx.zeros((2, 4, 4, 3), dtype)
    for t in scheduler.timesteps:
        output = scheduler.step(x, t, x, return_dict=True)
        assert isinstance(output, SchedulerOutput)
        assert output.prev_sample.dtype == output.pred_original_sample.dtype == dtype


def test_from_20_steps_on_unipc_is_nearer_to_the_solution_than_dpm_solver_of_its_order():
    """On the quadratic grid; with 10 steps it is not."""
    for n in (20, 40):
        errors = []
        for scheduler in (UniPCScheduler(), DPMSolverScheduler()):
            set_timesteps(scheduler, PowerGrid(2), scheduler.schedule, n)
            errors.append(rms(run(scheduler, X, mean=0.3) - ode_solution(scheduler, X, None, mean=0.3)))
        assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver_order": 4}, "solver_order must be a whole number, between 1 and 3, got 4"),
        ({"solver_order": 0}, "solver_order must be a whole number, between 1 and 3, got 0"),
        ({"solver_type": "heun"}, "solver_type must be one of bh1, bh2"),
        ({"final_sigmas_type": "one"}, "final_sigmas_type must be one of zero, sigma_min"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        UniPCScheduler(**arguments)
