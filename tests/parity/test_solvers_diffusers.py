"""UniPC and iPNDM agree with diffusers: step by step on the same input, and over whole loops with a model in between.

The tolerance is 1e-5 of the largest magnitude in the array (at least 1). diffusers computes schedule and coefficients
in float32 and the project in float64, and most of what is left is that.
"""

from __future__ import annotations

import warnings

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.schedulers.unipc_ipndm import IPNDMScheduler, UniPCScheduler

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside diffusers

SHAPE = (3, 4, 4, 3)
TOLERANCE = 1e-5
V, X0, COS, SCALED = (
    {"prediction_type": "v_prediction"},
    {"prediction_type": "sample"},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
)
LEADING, TRAILING = ({"timestep_spacing": s} for s in ("leading", "trailing"))
ONE, THREE, BH1 = {"solver_order": 1}, {"solver_order": 3}, {"solver_type": "bh1"}
SIGMA_MIN, FULL_ORDER = {"final_sigmas_type": "sigma_min"}, {"lower_order_final": False}
THRESHOLD = {"thresholding": True, "sample_max_value": 2.0}

# (number of steps, arguments)
CASES = [
    *[(n, {"solver_order": k}) for n in (1, 2, 3, 5, 10, 20) for k in (1, 2, 3)],
    *[(10, {**order, **c}) for order in (ONE, {}, THREE) for c in (V, X0, SCALED, LEADING, TRAILING, SIGMA_MIN)],
    *[(10, {**order, **THRESHOLD}) for order in ({}, THREE)],
    *[(10, {**order, **BH1, **SIGMA_MIN}) for order in (ONE, {}, THREE)],
    *[(10, {**order, **SIGMA_MIN, **FULL_ORDER}) for order in ({}, THREE)],
    (10, {**BH1, **SIGMA_MIN, **V, **TRAILING}),
    (10, {**LEADING, "steps_offset": 1, **SCALED}),
    (10, {**COS, **V}),
    *[(100, order) for order in (ONE, {}, THREE)],
    (50, {**THREE, **V}),
    (12, {"rescale_betas_zero_snr": True, **V, **TRAILING}),
    (4, {"trained_betas": list(np.linspace(0.01, 0.3, 20)), "num_train_timesteps": 20}),
]


def label(case) -> str:
    return f"{case[0]}-" + ",".join(f"{k}={str(v)[:12]}" for k, v in case[1].items())


def model(x: np.ndarray, i: int) -> np.ndarray:
    """A smooth, bounded, nonlinear prediction that depends on the sample and on the step."""
    return np.tanh(0.9 * x + 0.1 * np.sin(3 * x + i)).astype(np.float32)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert np.isfinite(a).all()
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))


def our_step(ours, prediction, i, x) -> np.ndarray:
    return np.array(ours.step(mx.array(prediction), ours.timesteps[i], mx.array(x)))


def their_step(theirs, prediction, i, x) -> np.ndarray:
    return theirs.step(torch.from_numpy(prediction), theirs.timesteps[i], torch.from_numpy(x)).prev_sample.numpy()


def give_noise_levels(theirs, ours) -> None:
    """Let diffusers, whose UniPC takes no timesteps of one's own, step between the noise levels of ours."""
    ratio = [node.sigma / node.alpha for node in ours._nodes]
    theirs.sigmas = torch.tensor(ratio)
    theirs.timesteps = torch.arange(len(ours), 0, -1)  # names of the steps only
    theirs.num_inference_steps = len(ours)


def agree(theirs, taught, free) -> None:
    x = y = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    for i in range(len(free)):
        from_x = our_step(taught, model(x, i), i, x)
        x = their_step(theirs, model(x, i), i, x).astype(np.float32)
        assert difference(from_x, x) < TOLERANCE, f"step {i} from the same sample"
        y = our_step(free, model(y, i), i, y)

    assert difference(y, x) < TOLERANCE, "the whole loop"


def test_the_table_has_at_least_forty_configurations():
    assert len({label(case) for case in CASES}) == len(CASES) >= 40


@pytest.mark.filterwarnings("ignore:timestep_spacing='leading' with 1 step")
@pytest.mark.parametrize("case", CASES, ids=label)
def test_unipc_agrees(case):
    n, arguments = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = diffusers.UniPCMultistepScheduler(**arguments)

    theirs.set_timesteps(n)
    taught, free = UniPCScheduler(**arguments), UniPCScheduler(**arguments)
    taught.set_timesteps(n)
    free.set_timesteps(n)
    np.testing.assert_array_equal(taught.timesteps, theirs.timesteps.numpy())
    agree(theirs, taught, free)


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_agrees_on_custom_timesteps(order, final):
    """Real-valued and unevenly spaced ones; diffusers is given their noise levels."""
    arguments = {"solver_order": order, "final_sigmas_type": final}
    theirs = diffusers.UniPCMultistepScheduler(**arguments)

    taught, free = UniPCScheduler(**arguments), UniPCScheduler(**arguments)
    for ours in (taught, free):
        ours.set_timesteps(timesteps=[999, 700.5, 650, 300.25, 90, 33.3, 2])

    theirs.set_timesteps(7)
    give_noise_levels(theirs, free)
    agree(theirs, taught, free)


def test_bh1_with_final_sigma_zero_is_finite_here_and_not_in_diffusers():
    theirs, ours = diffusers.UniPCMultistepScheduler(solver_type="bh1"), UniPCScheduler(solver_type="bh1")
    theirs.set_timesteps(10)
    ours.set_timesteps(10)

    x = y = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    for i in range(10):
        x, y = their_step(theirs, model(x, i), i, x), our_step(ours, model(y, i), i, y)
        assert i == 9 or difference(y, x) < TOLERANCE

    assert np.isfinite(y).all()
    assert not np.isfinite(x).all()


def test_configuration_file_of_diffusers_loads(tmp_path):
    diffusers.UniPCMultistepScheduler(solver_order=3, solver_type="bh1", steps_offset=1).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = UniPCScheduler.load(tmp_path)

    assert (ours.solver_order, ours.solver_type, ours.steps_offset) == (3, "bh1", 1)


@pytest.mark.parametrize(
    ("options", "instead"),
    [
        ({"use_karras_sigmas": True}, "grid=karras"),
        ({"use_exponential_sigmas": True}, "grid=log_snr"),
        ({"use_beta_sigmas": True}, "no such grid"),
        ({"predict_x0": False}, "clean image"),
        ({"disable_corrector": [0]}, "corrects every step"),
    ],
)
def test_options_that_change_the_result_are_named(options, instead, tmp_path):
    pytest.importorskip("scipy")  # which diffusers wants for beta sigmas
    diffusers.UniPCMultistepScheduler(**options).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=rf"UniPCScheduler ignores {next(iter(options))}=.*{instead}") as found:
        UniPCScheduler.load(tmp_path)

    assert len(found) == 1


def test_the_noise_of_flow_matching_is_refused(tmp_path):
    diffusers.UniPCMultistepScheduler(use_flow_sigmas=True).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="flow matching"):
        UniPCScheduler.load(tmp_path)


@pytest.mark.parametrize("n", [2, 5, 20])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_ipndm_agrees_up_to_the_last_step(n, spacing):
    """diffusers' IPNDM predicts v and has a noise schedule of its own; it is given ours. Its last step extrapolates."""
    ours = IPNDMScheduler(prediction_type="v_prediction", timestep_spacing=spacing)
    ours.set_timesteps(n)
    theirs = diffusers.IPNDMScheduler()
    theirs.set_timesteps(n)
    theirs.alphas, theirs.betas = (torch.tensor(scale) for scale in list(zip(*ours._nodes, strict=True))[:2])

    x = y = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    for i in range(n - 1):
        x, y = their_step(theirs, model(x, i), i, x), our_step(ours, model(y, i), i, y)
        assert difference(y, x) < TOLERANCE, f"step {i}"
