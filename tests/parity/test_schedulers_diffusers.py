"""The schedulers agree with diffusers: step by step on the same input, and over whole loops with a model in between.

The tolerance is 1e-5 of the largest magnitude in the array (at least 1). diffusers computes its schedule in float32 and
the project in float64, and most of what is left is that. Where 1 - alpha_bar in float32 is too coarse for it, next to
t = 0, diffusers is given its own schedule in float64.
"""

from __future__ import annotations

import warnings

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DDIMScheduler, DDPMScheduler, DPMSolverScheduler
from adaptive_diffusion.schedulers.unipc_ipndm import UniPCScheduler
from adaptive_diffusion.types import SchedulerOutput

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside diffusers

SHAPE = (3, 4, 4, 3)
TOLERANCE = 1e-5
THEIRS = {
    DDPMScheduler: diffusers.DDPMScheduler,
    DDIMScheduler: diffusers.DDIMScheduler,
    DPMSolverScheduler: diffusers.DPMSolverMultistepScheduler,
}

V, X0, COS, SCALED = (
    {"prediction_type": "v_prediction"},
    {"prediction_type": "sample"},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
)
TRAILING, LINSPACE, LEADING = ({"timestep_spacing": s} for s in ("trailing", "linspace", "leading"))
FREE, THRESHOLD = {"clip_sample": False}, {"thresholding": True, "sample_max_value": 2.0}
ZERO_SNR = {"rescale_betas_zero_snr": True}
SDE, HEUN = {"algorithm_type": "sde-dpmsolver++"}, {"solver_type": "heun"}
ONE, THREE = {"solver_order": 1}, {"solver_order": 3}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}

# (class, number of steps, arguments); DDIM only on grids of stride T // N, where diffusers' DDIM is right
CASES = [
    # DDIM
    *[(DDIMScheduler, n, {}) for n in (1, 2, 3, 5, 10, 50, 1000)],
    *[(DDIMScheduler, 10, c) for c in (V, X0, COS, SCALED, FREE, THRESHOLD, TRAILING, {"clip_sample_range": 0.7})],
    *[(DDIMScheduler, 20, {**c, "eta": 1.0}) for c in ({}, V, X0, TRAILING)],
    (DDIMScheduler, 5, {"eta": 0.5, **FREE}),
    (DDIMScheduler, 7, {"steps_offset": 1, "set_alpha_to_one": False, **SCALED, **FREE}),
    (DDIMScheduler, 10, {"set_alpha_to_one": False, **V}),
    (DDIMScheduler, 10, {"eta": 0.3, "set_alpha_to_one": False, "steps_offset": 1}),
    (DDIMScheduler, 10, {"use_clipped_model_output": True}),
    (DDIMScheduler, 10, {**ZERO_SNR, **V, **TRAILING}),
    (DDIMScheduler, 4, {"trained_betas": list(np.linspace(0.01, 0.3, 20)), "num_train_timesteps": 20}),
    # DDPM
    *[(DDPMScheduler, n, {}) for n in (1, 2, 3, 5, 50)],
    *[(DDPMScheduler, 20, c) for c in (V, X0, COS, SCALED, FREE, THRESHOLD, LINSPACE, TRAILING, {"steps_offset": 1})],
    *[(DDPMScheduler, 20, {"variance_type": "fixed_large", **c}) for c in ({}, V, LINSPACE)],
    (DDPMScheduler, 10, {**ZERO_SNR, **V, **TRAILING}),
    # DPM-Solver++, the ODE
    *[(DPMSolverScheduler, n, {"solver_order": k}) for n in (1, 2, 3, 5, 10, 20) for k in (1, 2, 3)],
    (DPMSolverScheduler, 100, {}),
    *[(DPMSolverScheduler, 10, c) for c in (V, X0, SCALED, HEUN, LEADING, TRAILING, THRESHOLD, SIGMA_MIN)],
    *[(DPMSolverScheduler, 20, {**THREE, **c}) for c in (V, HEUN, TRAILING, SIGMA_MIN, {"euler_at_final": True})],
    (DPMSolverScheduler, 10, {"lower_order_final": False, **THREE, **V}),
    (DPMSolverScheduler, 10, {"lower_order_final": False, **SIGMA_MIN}),
    (DPMSolverScheduler, 10, {"euler_at_final": True, "lower_order_final": False, **SIGMA_MIN}),
    (DPMSolverScheduler, 10, {**LEADING, "steps_offset": 1, **SCALED}),
    (DPMSolverScheduler, 10, {**COS, "lambda_min_clipped": -5.1}),
    (DPMSolverScheduler, 12, {**ZERO_SNR, **V, **TRAILING}),
    *[(DPMSolverScheduler, n, {"use_karras_sigmas": True}) for n in (1, 2)],
    # DPM-Solver++, the SDE (order 3: see test_sde_order_3_of_diffusers_is_inconsistent)
    *[(DPMSolverScheduler, n, {**SDE, "solver_order": k}) for n in (1, 3, 5, 20) for k in (1, 2)],
    *[(DPMSolverScheduler, 10, {**SDE, **c}) for c in (V, HEUN, LEADING, SIGMA_MIN)],
]

KARRAS, LU = {"use_karras_sigmas": True}, {"use_lu_lambdas": True}
CASES_WITH_FLOAT64_SCHEDULE = [
    (DDPMScheduler, 1000, {}),
    (DPMSolverScheduler, 5, KARRAS),
    *[(DPMSolverScheduler, 10, c) for c in (KARRAS, {**KARRAS, **THREE, **V}, LU, {**SDE, **KARRAS})],
]


def label(case) -> str:
    cls, n, arguments = case
    return f"{cls.__name__[:-9]}-{n}-" + ",".join(f"{k}={str(v)[:12]}" for k, v in arguments.items())


def model(x: np.ndarray, i: int) -> np.ndarray:
    """A smooth, bounded, nonlinear prediction that depends on the sample and on the step."""
    return np.tanh(0.9 * x + 0.1 * np.sin(3 * x + i)).astype(np.float32)


def their_scheduler(cls, n: int, arguments: dict, float64: bool = False):
    ours_only = {"eta", "use_clipped_model_output"} if cls is DDIMScheduler else set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = THEIRS[cls](**{k: v for k, v in arguments.items() if k not in ours_only})

    if arguments.get("rescale_betas_zero_snr"):
        theirs.alphas_cumprod[-1] = 2**-24  # as in its DPM-Solver++; its DDIM and DDPM leave an exact zero
    if float64:
        theirs.alphas_cumprod = torch.cumprod(1 - theirs.betas.double(), 0)

    theirs.set_timesteps(n)

    extra = {k: arguments[k] for k in ours_only & arguments.keys()}

    def step(prediction, i, x, noise, monkeypatch):
        if cls is DDPMScheduler:
            monkeypatch.setattr(
                "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: torch.from_numpy(noise)
            )
        else:
            extra["variance_noise"] = torch.from_numpy(noise)

        result = theirs.step(torch.from_numpy(prediction), theirs.timesteps[i], torch.from_numpy(x), **extra)
        return result.prev_sample.numpy()

    return theirs, step


def our_step(ours, prediction, i, x, noise) -> np.ndarray:
    return np.array(ours.step(mx.array(prediction), ours.timesteps[i], mx.array(x), noise=mx.array(noise)))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert np.isfinite(a).all()
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))


def test_the_table_has_at_least_forty_configurations():
    assert len({label(case) for case in CASES}) == len(CASES) >= 40


@pytest.mark.filterwarnings("ignore:timestep_spacing='leading' with 1 step")
@pytest.mark.parametrize("case", CASES + CASES_WITH_FLOAT64_SCHEDULE, ids=label)
def test_steps_and_loops_agree(case, monkeypatch):
    cls, n, arguments = case
    theirs, their_step = their_scheduler(cls, n, arguments, float64=case in CASES_WITH_FLOAT64_SCHEDULE)
    taught, free = cls(**arguments), cls(**arguments)
    taught.set_timesteps(n)
    free.set_timesteps(n)
    # diffusers rounds the timesteps of its Karras and log-SNR grids, though it steps from the exact noise levels
    slack = 0.5 if arguments.keys() & {"use_karras_sigmas", "use_lu_lambdas"} else 0
    assert np.abs(taught.timesteps - theirs.timesteps.numpy()).max() <= slack

    rng = np.random.default_rng(0)
    x = y = rng.standard_normal(SHAPE).astype(np.float32)
    for i in range(n):
        noise = rng.standard_normal(SHAPE).astype(np.float32)
        from_x = our_step(taught, model(x, i), i, x, noise)
        x = their_step(model(x, i), i, x, noise, monkeypatch).astype(np.float32)
        assert difference(from_x, x) < TOLERANCE, f"step {i} from the same sample"
        y = our_step(free, model(y, i), i, y, noise)

    assert difference(y, x) < TOLERANCE, "the whole loop"


@pytest.mark.parametrize("solver_order", [1, 2, 3])
def test_custom_timesteps_agree_with_diffusers_dpm_solver(solver_order):
    timesteps = [999, 700, 650, 300, 90, 33, 2]
    ours = DPMSolverScheduler(solver_order=solver_order)
    ours.set_timesteps(timesteps=timesteps)
    theirs = diffusers.DPMSolverMultistepScheduler(solver_order=solver_order)
    theirs.set_timesteps(timesteps=timesteps)

    x = y = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    for i, t in enumerate(timesteps):
        x = theirs.step(torch.from_numpy(model(x, i)), t, torch.from_numpy(x)).prev_sample.numpy()
        y = our_step(ours, model(y, i), i, y, np.zeros(SHAPE, np.float32))
        assert difference(y, x) < TOLERANCE


@pytest.mark.parametrize(("spacing", "n"), [("linspace", 10), ("trailing", 30), ("leading", 7)])
def test_ddim_is_the_ancestral_step_of_diffusers_ddpm_on_any_grid(spacing, n, monkeypatch):
    """With eta = 1 DDIM is DDPM, and diffusers' DDPM does look its neighbour up in the list, as its DDIM does not."""
    arguments = {"timestep_spacing": spacing}
    _, their_step = their_scheduler(DDPMScheduler, n, arguments)
    ours = DDIMScheduler(eta=1.0, use_clipped_model_output=True, **arguments)
    ours.set_timesteps(n)
    rng = np.random.default_rng(2)

    x = y = rng.standard_normal(SHAPE).astype(np.float32)
    for i in range(n):
        noise = rng.standard_normal(SHAPE).astype(np.float32)
        x = their_step(model(x, i), i, x, noise, monkeypatch)
        y = our_step(ours, model(y, i), i, y, noise)
        assert difference(y, x) < TOLERANCE


def test_ddim_is_first_order_dpm_solver_on_linspace():
    """The deterministic DDIM on a grid where diffusers' own goes to the wrong timestep."""
    theirs = diffusers.DPMSolverMultistepScheduler(solver_order=1)
    theirs.set_timesteps(timesteps=[999, 749, 500, 250, 1])
    ours = DDIMScheduler(clip_sample=False)
    ours.set_timesteps(timesteps=theirs.timesteps.numpy())

    x = y = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)
    for i, t in enumerate(theirs.timesteps):
        x = theirs.step(torch.from_numpy(model(x, i)), t, torch.from_numpy(x)).prev_sample.numpy()
        y = our_step(ours, model(y, i), i, y, np.zeros(SHAPE, np.float32))
        assert difference(y, x) < TOLERANCE


def test_sde_order_3_of_diffusers_is_inconsistent():
    """diffusers has the wrong sign in the third-order SDE step: it misses a quadratic, here by far; ours does not.

    With D(lambda) quadratic and no noise, the exact step is the integral of 2 e^(-2 (h - u)) D(u) over the step.
    """
    ours = DPMSolverScheduler(
        solver_order=3, algorithm_type="sde-dpmsolver++", prediction_type="sample", lower_order_final=False
    )
    exact = DPMSolverScheduler(**{**ours.config, "solver_type": "adams"})
    theirs = diffusers.DPMSolverMultistepScheduler(
        solver_order=3, algorithm_type="sde-dpmsolver++", prediction_type="sample", lower_order_final=False
    )
    timesteps = [700, 600, 500, 400]
    theirs.set_timesteps(timesteps=timesteps)
    lam = exact.schedule.log_snr(timesteps)
    zero = np.zeros((1, 1, 1, 1), np.float32)

    for scheduler in (ours, exact):
        scheduler.set_timesteps(timesteps=timesteps)

    for i in range(3):
        d = np.full((1, 1, 1, 1), (lam[i] - lam[2]) ** 2, np.float32)
        a = our_step(ours, d, i, zero, zero)
        b = our_step(exact, d, i, zero, zero)
        c = theirs.step(
            torch.from_numpy(d), timesteps[i], torch.from_numpy(zero), variance_noise=torch.from_numpy(zero)
        ).prev_sample.numpy()

    h = lam[3] - lam[2]
    u = (np.arange(100_000) + 0.5) / 100_000 * h
    truth = exact.schedule.alpha(400) * h * np.mean(2 * np.exp(-2 * (h - u)) * u**2)
    assert b.item() == pytest.approx(truth, rel=1e-4)
    assert a.item() != pytest.approx(truth, rel=0.1)  # the published weights halve the quadratic term
    assert c.item() < 0 < a.item()


def test_configuration_file_of_diffusers_loads(tmp_path):
    diffusers.DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, solver_order=3, steps_offset=1
    ).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = DPMSolverScheduler.load(tmp_path)

    assert (ours.beta_schedule, ours.solver_order, ours.steps_offset) == ("scaled_linear", 3, 1)


@pytest.mark.parametrize("kind", ["DDIM", "DDPM", "PNDM", "EulerDiscrete", "LCM", "DEISMultistep", "SASolver"])
def test_configuration_files_of_other_schedulers_load_without_a_word_where_they_ask_for_nothing(kind, tmp_path):
    getattr(diffusers, f"{kind}Scheduler")().save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DDIMScheduler.load(tmp_path).beta_end in (0.02, 0.012)


@pytest.mark.parametrize("ours", [UniPCScheduler, AdaptiveScheduler, DPMSolverScheduler, DDPMScheduler])
@pytest.mark.parametrize("kind", ["DPMSolverMultistep", "UniPCMultistep", "DEISMultistep", "DDIM", "DDPM"])
def test_a_scheduler_takes_the_configuration_of_another_one_without_a_word(kind, ours):
    config = getattr(diffusers, f"{kind}Scheduler")(beta_end=0.012).config
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        taken = ours.from_config(config)
    assert taken.beta_end == 0.012
    default = ours()
    assert taken.solver == default.solver


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("ours", THEIRS)
def test_timesteps_agree_for_every_number_of_steps_also_at_ties_of_rounding(ours, spacing):
    """diffusers adds a timestep -1 to some trailing grids, where rounding makes one more stride of them."""
    scheduler, theirs = ours(timestep_spacing=spacing), THEIRS[ours](timestep_spacing=spacing)
    for n in range(2, 301):
        scheduler.set_timesteps(n)
        theirs.set_timesteps(n)
        assert scheduler.timesteps.tolist() == theirs.timesteps.tolist()[:n], n


def test_our_configuration_file_loads_in_diffusers(tmp_path):
    DDIMScheduler(timestep_spacing="trailing", prediction_type="v_prediction").save(tmp_path)
    theirs = diffusers.DDIMScheduler.from_pretrained(tmp_path)
    assert (theirs.config.timestep_spacing, theirs.config.prediction_type) == ("trailing", "v_prediction")


def test_clean_prediction_agrees():
    ours, theirs = DDIMScheduler(), diffusers.DDIMScheduler()
    ours.set_timesteps(10)
    theirs.set_timesteps(10)
    x = np.random.default_rng(4).standard_normal(SHAPE).astype(np.float32)
    eps = model(x, 0)
    output = ours.step(mx.array(eps), 500, mx.array(x), return_dict=True)
    assert isinstance(output, SchedulerOutput)
    expected = theirs.step(torch.from_numpy(eps), 500, torch.from_numpy(x)).pred_original_sample.numpy()
    assert difference(np.array(output.pred_original_sample), expected) < TOLERANCE


def test_forward_noise_agrees_for_one_timestep_per_picture():
    x, noise = np.random.default_rng(5).standard_normal((2, *SHAPE)).astype(np.float32)
    t = np.array([0, 321, 999])
    expected = diffusers.DDIMScheduler().add_noise(torch.from_numpy(x), torch.from_numpy(noise), torch.from_numpy(t))
    ours = np.array(DDIMScheduler().add_noise(mx.array(x), mx.array(noise), t))
    assert difference(ours, expected.numpy()) < TOLERANCE
