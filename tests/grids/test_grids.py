"""Grids: where the model is evaluated, with any scheduler."""

from __future__ import annotations

import numpy as np
import pytest
from gaussian import ode_solution, run
from omegaconf import OmegaConf
from tiny import CONF

from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.grids.spacings import BlendedGrid, KarrasGrid, LogSNRGrid, PowerGrid, TableGrid
from adaptive_diffusion.sampling.starts import set_timesteps
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DDIMScheduler, DDPMScheduler, DPMSolverScheduler

GRIDS = [PowerGrid(1), PowerGrid(2), LogSNRGrid(), KarrasGrid(), BlendedGrid()]
SCHEDULES = [NoiseSchedule(), NoiseSchedule(beta_schedule="squaredcos_cap_v2"), NoiseSchedule(400)]
SCHEDULERS = [DDPMScheduler, DDIMScheduler, DPMSolverScheduler, AdaptiveScheduler]
TABLES = {option: OmegaConf.load(CONF / "grid" / f"{option}.yaml").timesteps for option in ("ays_sd15", "ays_sdxl")}
STABLE_DIFFUSION = NoiseSchedule(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
X = np.random.default_rng(0).standard_normal((4, 4, 4, 3))


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=["linear", "cosine", "short"])
@pytest.mark.parametrize("n", [1, 2, 5, 400, 1000])
def test_a_grid_decreases_strictly_from_the_last_timestep(grid, schedule, n):
    T = schedule.num_train_timesteps
    if n > T:
        with pytest.raises(ValueError, match="must be a whole number, between 1 and 400, got 1000"):
            grid(schedule, n)
        return
    t = grid(schedule, n)
    assert t.shape == (n,)
    assert t[0] == pytest.approx(T - 1, abs=1e-9)
    assert (np.diff(t) < 0).all()
    assert t[-1] >= 0


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
@pytest.mark.parametrize("n", [0, -1, 1001, 2.5])
def test_a_number_of_steps_out_of_range_is_one_sentence(grid, n):
    with pytest.raises(ValueError, match=rf"^num_inference_steps must be .* between 1 and 1000, got {n}$"):
        grid(NoiseSchedule(), n)


def test_power_grids_are_the_closed_form():
    schedule = NoiseSchedule()
    assert PowerGrid(1)(schedule, 3).tolist() == pytest.approx([999, 666, 333])
    assert PowerGrid(2)(schedule, 4).tolist() == pytest.approx([999, 999 * 9 / 16, 999 / 4, 999 / 16])
    assert PowerGrid(7)(schedule, 1).tolist() == [999]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["linear", "cosine", "short"])
def test_the_log_snr_grid_is_equally_spaced_down_to_the_first_timestep(schedule):
    log_snr = schedule.log_snr(LogSNRGrid()(schedule, 7))
    first, last = schedule.log_snr([schedule.num_train_timesteps - 1, 0])
    np.testing.assert_allclose(log_snr, first + np.arange(7) / 6 * (last - first))


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_the_karras_grid_is_their_equation_5(rho):
    schedule = NoiseSchedule()
    s_max, s_min = np.exp(-schedule.log_snr([999, 0]))
    expected = (s_max ** (1 / rho) + np.arange(6) / 5 * (s_min ** (1 / rho) - s_max ** (1 / rho))) ** rho
    np.testing.assert_allclose(np.exp(-schedule.log_snr(KarrasGrid(rho)(schedule, 6))), expected, rtol=1e-9)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_the_blended_grid_has_equal_steps_in_the_mean_of_both_measures_of_progress(weight):
    schedule = NoiseSchedule()
    t = np.append(BlendedGrid(weight)(schedule, 6), 0.0)
    log_snr = schedule.log_snr(t)
    progress = weight * (log_snr - log_snr[0]) / (log_snr[-1] - log_snr[0]) + (1 - weight) * (1 - np.sqrt(t / 999))
    np.testing.assert_allclose(progress, np.arange(7) / 6, atol=2e-3)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_is_taken_as_it_is_and_interpolated_in_log_snr(table):
    grid, schedule = TableGrid(table), STABLE_DIFFUSION
    assert grid(schedule, 10).tolist() == table

    known = schedule.log_snr(np.array(table))
    middles = (known[1:] + known[:-1]) / 2  # with 19 steps every second one is half way between two of the table
    np.testing.assert_allclose(schedule.log_snr(grid(schedule, 19))[::2], known)
    np.testing.assert_allclose(schedule.log_snr(grid(schedule, 19))[1::2], middles)

    for n in (1, 2, 5, 11, 200, 1000):
        t = grid(schedule, n)
        assert (t[0], t.shape) == (999, (n,))
        assert t[-1] == (table[-1] if n > 1 else 999)
        assert (np.diff(t) < 0).all()


@pytest.mark.parametrize(
    ("option", "sigmas"),
    [
        ("ays_sd15", [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152]),
        ("ays_sdxl", [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113]),
    ],
)
def test_the_tables_have_the_noise_levels_that_are_published_beside_them(option, sigmas):
    exact = STABLE_DIFFUSION.timestep(-np.log(sigmas))
    np.testing.assert_allclose(TABLES[option], exact, atol=0.6)  # timesteps are rounded to whole ones, sigmas to 0.001


def test_a_table_is_refused_where_its_timesteps_mean_something_else():
    with pytest.raises(ValueError, match="for models with 1000 training timesteps and the noise schedule has 400"):
        TableGrid(TABLES["ays_sd15"])(NoiseSchedule(400), 10)
    for table, words in (([999, 999], "strictly decreasing"), ([1000, 1], "in .0, 999."), ([999], "at least two")):
        with pytest.raises(ValueError, match=words):
            TableGrid(table)


@pytest.mark.parametrize(
    "build", [lambda: PowerGrid(0), lambda: PowerGrid(11), lambda: KarrasGrid(0.5), lambda: BlendedGrid(2)]
)
def test_a_parameter_out_of_range_is_refused(build):
    with pytest.raises(ValueError, match=r"must be a number, .* got"):
        build()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("grid", GRIDS, ids=repr)
@pytest.mark.parametrize("n", [1, 2, 5, 1000])
def test_a_grid_replaces_the_spacing_of_any_scheduler_and_leads_to_the_clean_picture(scheduler, grid, n):
    scheduler = scheduler(clip_sample=False)
    set_timesteps(scheduler, grid, scheduler.schedule, n)
    np.testing.assert_array_equal(scheduler.timesteps, grid(scheduler.schedule, n))
    # data of one image, which is the clean prediction everywhere: the end of any solver and any grid
    noise = np.random.default_rng(1).standard_normal
    out = run(scheduler, X[..., :1, :1, :1], lambda i: noise((4, 1, 1, 1)), std=1e-9, mean=0.25)
    np.testing.assert_allclose(out, 0.25, atol=1e-5)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_without_a_grid_the_spacing_is_the_schedulers_own(scheduler):
    ours, plain = scheduler(), scheduler()
    set_timesteps(ours, None, ours.schedule, 12)
    plain.set_timesteps(12)
    np.testing.assert_array_equal(ours.timesteps, plain.timesteps)


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_every_grid_converges_to_the_exact_solution(grid):
    scheduler = DPMSolverScheduler()
    errors = []
    for n in (10, 40, 160):
        set_timesteps(scheduler, grid, scheduler.schedule, n)
        errors.append(np.abs(run(scheduler, X) - ode_solution(scheduler, X, None)).max())
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3
    assert errors[2] < 0.01
