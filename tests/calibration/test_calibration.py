"""Calibration: what is measured is the closed form, both rules do what they say, and a grid has to earn its place."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from gaussian import ode_solution, predict, run
from scipy.fft import dctn, idctn

from adaptive_diffusion.calibration.choosing import choose
from adaptive_diffusion.calibration.fitting import Solution
from adaptive_diffusion.calibration.trajectory import dynamic_programme, equidistributed, measure_trajectory
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.grids.calibrated import CalibratedGrid
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score
from adaptive_diffusion.grids.schedule_file import load_schedules, save_schedules
from adaptive_diffusion.grids.spacings import KarrasGrid, LogSNRGrid, PowerGrid
from adaptive_diffusion.sampling.converged import paired_rmse
from adaptive_diffusion.schedulers.classes import DDIMScheduler, DPMSolverScheduler

SCHEDULE = NoiseSchedule()
SHAPE = (8, 8, 3)
NOISE = np.array(normal(image_keys(0, range(32)), SHAPE), np.float64)
SPECTRUM = (NOISE - NOISE.mean(axis=0)) / NOISE.std(axis=0, ddof=1)  # so that variances are known exactly
X_T = mx.array(idctn(SPECTRUM, axes=(1, 2, 3), norm="ortho"), mx.float32)
SIZE = np.sqrt(31 / 32)  # its RMS
HELD_OUT = np.array(normal(image_keys(1, range(32)), SHAPE), np.float64)
RADIUS = np.rint(np.hypot(*np.mgrid[:8, :8]))[..., None]
NATURAL = 4 / (1 + RADIUS) ** 1.5 * np.array([1, 0.5, 0.25])  # standard deviation per frequency and colour
RULES = [equidistributed, dynamic_programme]


def denoise(scheduler, x, t, std):
    """The exact prediction for independent frequencies N(0, std^2), in SciPy's cosine transform."""
    spectrum = predict(scheduler, float(t[0]), dctn(np.array(x, np.float64), axes=(1, 2, 3), norm="ortho"), std=std)
    return mx.array(idctn(spectrum, axes=(1, 2, 3), norm="ortho"), mx.float32)


def measure(std, x_T=X_T, scheduler=None, **options):
    """The trajectory of that model, which is not clipped."""
    scheduler = scheduler or DDIMScheduler(clip_sample=False)
    return measure_trajectory(scheduler.guided(lambda x, t, _=None: denoise(scheduler, x, t, std)), x_T, **options)


@pytest.fixture(scope="module")
def natural():
    return measure(NATURAL)


def closed_form(log_snr, std):
    """xh, D, dD / dlambda and w of N(0, std^2) along the ODE, (m, ...) for an x_T of 1."""
    s = np.exp(-log_snr).reshape(-1, *np.ones(np.ndim(std), int))
    unit = np.sqrt((1 + s[:1] ** 2) / (std**2 + s[:1] ** 2))  # x_T / alpha_T = sqrt(1 + s_T^2) x_T
    total = std**2 + s**2
    return (unit * v for v in (np.sqrt(total), std**2 / np.sqrt(total), std**2 * s**2 / total**1.5)), std / np.sqrt(
        total
    )


@pytest.mark.parametrize(("nodes", "tolerance"), [(60, 0.05), (240, 0.005)])
@pytest.mark.parametrize("std", [np.array(0.5), NATURAL], ids=["white", "natural"])
def test_the_speed_is_that_of_the_closed_form(std, nodes, tolerance):
    found = measure(std, nodes=nodes)
    (_, _, speed), w = closed_form(found.log_snr, std)
    expected = SIZE * np.sqrt(np.mean((speed * w) ** 2, axis=tuple(range(1, w.ndim))))
    np.testing.assert_allclose(found.lasting_speed, expected, rtol=tolerance, atol=2e-4)  # float32 states
    np.testing.assert_allclose(found.log_snr, SCHEDULE.log_snr(LogSNRGrid()(SCHEDULE, nodes)))


@pytest.mark.parametrize("std", [np.full(SHAPE, 0.5), NATURAL], ids=["white", "natural"])
def test_the_cost_of_a_jump_is_that_of_the_closed_form(std):
    found = measure(std, nodes=240)
    (xh, x0, _), w = closed_form(found.log_snr, std)
    s = np.exp(-found.log_snr)
    for i, j in [(0, 40), (0, 239), (40, 120), (120, 122), (150, 170), (220, 239)]:
        difference = w[j] * (s[j] / s[i] * xh[i] + (1 - s[j] / s[i]) * x0[i] - xh[j])
        expected = SIZE * np.sqrt(np.mean(difference**2))
        assert found.jump_costs[i, j] == pytest.approx(expected, rel=0.02, abs=5e-5)
    assert found.jump_costs[80, 240] == pytest.approx(SIZE * np.sqrt(np.mean((x0[80] - x0[239]) ** 2)), rel=0.02)
    assert found.jump_costs[239, 240] == 0
    assert np.isinf(found.jump_costs[np.tril_indices(241)]).all()


def test_the_standard_deviation_is_about_each_pixels_mean():
    mean = np.linspace(-0.5, 0.5, 192).reshape(SHAPE)
    scheduler = DDIMScheduler(prediction_type="sample")

    def denoiser(x, t, condition=None):
        return mx.array(predict(scheduler, float(t[0]), np.array(x, np.float64), std=0.1, mean=mean), mx.float32)

    found = measure_trajectory(scheduler.guided(denoiser), X_T)
    (_, _, speed), w = closed_form(found.log_snr, 0.1)
    np.testing.assert_allclose(found.lasting_speed, SIZE * speed * w, rtol=0.05, atol=2e-4)


def test_it_is_the_same_in_batches_and_each_picture_has_its_condition(natural):
    seen = []
    scheduler = DDIMScheduler(clip_sample=False)

    def denoiser(x, t, condition):
        seen.append(np.array(condition).tolist())
        return denoise(scheduler, x, t, NATURAL)

    steps = []
    found = measure_trajectory(scheduler.guided(denoiser, mx.arange(32)), X_T, batch_size=20, progress=steps.append)
    assert [seen[0], seen[60]] == [list(range(20)), list(range(20, 32))]
    assert steps == [20] * 60 + [12] * 60
    np.testing.assert_allclose(found.lasting_speed, natural.lasting_speed, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.jump_costs, natural.jump_costs, rtol=1e-3, atol=1e-4)


def test_clean_predictions_are_clipped_as_the_scheduler_has_it():
    clipped = measure(2.0, scheduler=DDIMScheduler(clip_sample_range=0.25), nodes=10)
    assert clipped.jump_costs[:-1, -1].max() <= 0.5  # from clean predictions to clean images
    assert measure(2.0, nodes=10).jump_costs[:-1, -1].max() > 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"nodes": 2}, "nodes must be a whole number, between 3 and 1000, got 2"),
        ({"nodes": 1001}, "nodes must be a whole number, between 3 and 1000, got 1001"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1, got 0"),
        ({"x_T": X_T[:1]}, "the number of noises must be a whole number, at least 2, got 1"),
        ({"x_T": mx.broadcast_to(X_T[:1], (3, *SHAPE)), "nodes": 5}, "the 3 images are all alike"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        measure(0.5, **options)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", [1, 2, 5, 20, 59, 60])
def test_a_rule_gives_timesteps_that_decrease_strictly_from_the_last_one(natural, rule, n):
    t = rule(natural, SCHEDULE, n)
    assert t.shape == (n,)
    assert t[0] == 999
    assert (np.diff(t) < 0).all()
    assert t[-1] >= 0
    DPMSolverScheduler().set_timesteps(timesteps=t)


def test_a_number_of_steps_out_of_range_is_one_sentence(natural):
    for n, most in ((0, 1000), (1001, 1000)):
        with pytest.raises(ValueError, match=f"num_inference_steps must be .* between 1 and {most}, got {n}"):
            equidistributed(natural, SCHEDULE, n)
    with pytest.raises(ValueError, match="between 1 and 60, got 61"):
        dynamic_programme(natural, SCHEDULE, 61)


@pytest.mark.parametrize("n", [4, 8, 15])
def test_equidistribution_equalises_the_integral_of_the_closed_form(natural, n):
    ends = np.append(SCHEDULE.log_snr(equidistributed(natural, SCHEDULE, n)), natural.log_snr[-1])
    fine = np.linspace(natural.log_snr[0], natural.log_snr[-1], 20001)
    (_, _, speed), w = closed_form(fine, NATURAL)
    density = np.mean((speed * w) ** 2, axis=(1, 2, 3)) ** 0.25  # square root of the RMS
    integral = np.append(0, np.cumsum((density[1:] + density[:-1]) / 2))
    np.testing.assert_allclose(np.diff(np.interp(ends, fine, integral)), integral[-1] / n, rtol=0.03)


@pytest.mark.parametrize("n", [1, 2, 4, 9])
def test_the_dynamic_programme_is_the_best_of_all_paths(n):
    seen = measure(NATURAL, nodes=9)

    def cost(path):
        return sum(seen.jump_costs[i, j] ** 1.5 for i, j in itertools.pairwise(path))

    best = min(((0, *inner, 9) for inner in itertools.combinations(range(1, 9), n - 1)), key=cost)
    found = dynamic_programme(seen, SCHEDULE, n)
    np.testing.assert_allclose(found, SCHEDULE.timestep(seen.log_snr[list(best[:-1])]))


def errors(timesteps, std=NATURAL):
    """(N,) RMSE of held-out images by DPM-Solver++(2M) from the exact solution; in the cosine transform."""
    scheduler = DPMSolverScheduler()
    scheduler.set_timesteps(timesteps=timesteps)
    return paired_rmse(run(scheduler, HELD_OUT, std=std), ode_solution(scheduler, HELD_OUT, None, std=std))


@pytest.mark.parametrize("n", [5, 8, 10, 20])
@pytest.mark.parametrize("rule", RULES)
def test_both_rules_have_a_smaller_error_than_the_uniform_grid(natural, rule, n):
    assert errors(rule(natural, SCHEDULE, n)).mean() < 0.6 * errors(PowerGrid(1)(SCHEDULE, n)).mean()


@pytest.mark.parametrize("n", [5, 8, 10, 20])
def test_a_propagator_that_knows_frequencies_is_better_than_one_for_all_pixels(natural, n):
    (_, _, speed), _ = closed_form(natural.log_snr, NATURAL)
    data_std = np.sqrt(np.mean(NATURAL**2))
    w = data_std / np.hypot(data_std, np.exp(-natural.log_snr))
    same_for_all = replace(natural, lasting_speed=np.sqrt(np.mean(speed**2, axis=(1, 2, 3))) * w)
    found = errors(equidistributed(natural, SCHEDULE, n)).mean()
    assert found < 0.6 * errors(equidistributed(same_for_all, SCHEDULE, n)).mean()


def scored(**means):
    """Candidates of one timestep each, and a score that gives means +- 0.1, the same deviations for all."""
    spread = 0.1 * np.tile([-1.0, 1.0], 8)
    candidates = {name: Solution(np.array([999.0 - i])) for i, name in enumerate(means)}
    return candidates, lambda candidate: list(means.values())[int(999 - candidate.timesteps[0])] + spread


def test_the_classical_grid_is_kept_for_a_tie_and_for_a_loss():
    for calibrated in (0.5, 0.51):
        found = choose(*scored(uniform=0.6, quadratic=0.5, equidistributed=calibrated), ["uniform", "quadratic"])
        assert found.rule == "quadratic"
        assert found.timesteps == (998.0,)


def test_a_gain_within_the_standard_error_of_the_paired_difference_is_none():
    noise = np.tile([-0.1, 0.1], 8)  # standard error sqrt(0.01 * 16 / 15 / 16) = 0.0258
    for gain, rule in ((0.025, "quadratic"), (0.027, "gits")):
        by_t = {999.0: np.ones(16), 998.0: 1 - gain + noise}
        found = choose(
            {"quadratic": Solution(np.array([999.0])), "gits": Solution(np.array([998.0]), np.zeros((1, 2)))},
            lambda candidate, e=by_t: e[candidate.timesteps[0]],
            ["quadratic"],
        )
        assert found.rule == rule
        assert found.corrections == {"quadratic": None, "gits": ((0.0, 0.0),)}[rule]
        assert found.scores["gits"].standard_error == pytest.approx(0.0258, abs=1e-4)


def test_a_clear_winner_is_taken_with_the_scores_of_its_rivals():
    found = choose(*scored(uniform=0.6, quadratic=0.5, equidistributed=0.45, gits=0.4), ["uniform", "quadratic"])
    assert found.rule == "gits"
    assert found.timesteps == (996.0,)
    means = {name: score.mean for name, score in found.scores.items()}
    assert means == pytest.approx({"uniform": 0.6, "quadratic": 0.5, "equidistributed": 0.45, "gits": 0.4})


def test_without_a_calibrated_candidate_the_best_classical_one_is_chosen():
    assert choose(*scored(uniform=0.6, quadratic=0.5), ["uniform", "quadratic"]).rule == "quadratic"


@pytest.mark.parametrize("classical", [[], ["karras"]])
def test_a_choice_needs_a_classical_candidate(classical):
    with pytest.raises(ValueError, match="classical grids must be some of the candidates uniform, gits, got"):
        choose(*scored(uniform=0.6, gits=0.5), classical)


@pytest.mark.parametrize("bad", [[1.0], [[1.0, 2.0]], [1.0, float("nan")]])
def test_scores_that_are_no_pairs_of_numbers_are_refused(bad):
    by_t = {999.0: [1.0, 2.0], 998.0: bad}
    candidates = {name: Solution(np.array([t])) for name, t in (("a", 999.0), ("b", 998.0))}
    with pytest.raises(ValueError, match="score must give the same number of finite errors"):
        choose(candidates, lambda candidate: np.array(by_t[candidate.timesteps[0]]), ["a"])


def calibrated(**grids):
    """A schedule with the given rules' grids, keyed by `rule=timesteps`."""
    return CalibratedSchedule(
        model="0123456789abcdef",
        guidance_scale=1.5,
        domain="landscapes",
        num_train_timesteps=1000,
        metric="rmse",
        noises=64,
        held_out=128,
        steps={
            len(t): CalibratedSteps(tuple(map(float, t)), None, rule, {rule: Score(0.1, 0.01)})
            for rule, t in grids.items()
        },
    )


def test_what_is_saved_is_what_is_loaded(natural, tmp_path):
    first = calibrated(equidistributed=equidistributed(natural, SCHEDULE, 7), quadratic=PowerGrid(2)(SCHEDULE, 5))
    second = replace(first, domain="portraits", guidance_scale=1.0)
    save_schedules(tmp_path / "new" / "schedules.json", [first, second])
    assert load_schedules(tmp_path / "new" / "schedules.json") == (first, second)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["schedules.json"]


def damage(content, path, value):
    """The content with one value replaced; None deletes it."""
    *inner, last = path
    place = content
    for key in inner:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (["format"], "another/1", "holds no calibrated schedules of this project"),
        (["format"], None, "holds no calibrated schedules of this project"),
        (["schedules"], None, "is damaged"),
        (["schedules", 0], "text", "is damaged"),
        (["schedules", 0, "noises"], None, "is damaged"),
        (["schedules", 0, "held_out"], 1, "is damaged .*held_out must be"),
        (["schedules", 0, "more"], 1, "is damaged"),
        (["schedules", 0, "steps"], {}, "is damaged .*at least one number of steps"),
        (["schedules", 0, "steps", "3", "rule"], None, "is damaged"),
        (["schedules", 0, "steps", "3", "timesteps"], [999, 500], "is damaged .*3 steps must have 3 timesteps, from"),
        (["schedules", 0, "steps", "3", "timesteps"], [998, 500, 1], "is damaged .*from 999 on, got 3 from 998 on"),
        (["schedules", 0, "steps", "3", "timesteps", 1], 999.5, "is damaged .*strictly decreasing"),
        (["schedules", 0, "steps", "3", "timesteps", 1], float("nan"), "is damaged .*strictly decreasing"),
    ],
)
def test_a_file_that_is_damaged_or_of_another_kind_is_refused_in_one_sentence(tmp_path, path, value, sentence):
    file = tmp_path / "schedules.json"
    save_schedules(file, [calibrated(gits=[999, 500, 100])])
    file.write_text(damage(json.loads(file.read_text()), path, value))
    with pytest.raises(ValueError, match=sentence) as caught:
        load_schedules(file)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_truncated_or_no_json_is_refused(tmp_path):
    file = tmp_path / "schedules.json"
    with pytest.raises(ValueError, match=r"there are no calibrated schedules at .*schedules\.json"):
        load_schedules(file)
    save_schedules(file, [calibrated(gits=[999, 500, 100])])
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\xff\xfe\x00"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as JSON"):
            load_schedules(file)
    file.write_text("[]")
    with pytest.raises(ValueError, match="holds no calibrated schedules"):
        load_schedules(file)


def test_a_calibrated_number_of_steps_gives_the_grid_as_it_was_calibrated(natural):
    known = {"a": equidistributed(natural, SCHEDULE, 5), "b": dynamic_programme(natural, SCHEDULE, 8)}
    for grid in known.values():
        np.testing.assert_array_equal(CalibratedGrid(calibrated(**known))(SCHEDULE, len(grid)), grid)


@pytest.mark.parametrize("n", [1, 3, 5, 6, 12, 1000])
def test_another_number_of_steps_has_the_quantiles_of_the_nearest_one(n):
    grid = CalibratedGrid(calibrated(quadratic=PowerGrid(2)(SCHEDULE, 4)))
    np.testing.assert_allclose(grid(SCHEDULE, n), PowerGrid(2)(SCHEDULE, n), rtol=1e-9)


@pytest.mark.parametrize(("n", "nearest"), [(3, 4), (5, 4), (6, 9), (8, 9), (30, 9)])
def test_the_nearest_one_is_that_of_the_nearest_ratio_and_of_two_the_finer(n, nearest):
    known = {4: PowerGrid(1)(SCHEDULE, 4), 9: PowerGrid(2)(SCHEDULE, 9)}
    both = CalibratedGrid(calibrated(uniform=known[4], quadratic=known[9]))
    alone = CalibratedGrid(calibrated(only=known[nearest]))
    np.testing.assert_array_equal(both(SCHEDULE, n), alone(SCHEDULE, n))


@pytest.mark.parametrize("source", [KarrasGrid(), LogSNRGrid(), PowerGrid(3)], ids=repr)
@pytest.mark.parametrize("n", [1, 2, 7, 23, 1000])
def test_resampled_timesteps_decrease_strictly_and_end_where_the_source_ends(source, n):
    t = CalibratedGrid(calibrated(source=source(SCHEDULE, 10)))(SCHEDULE, n)
    assert t.shape == (n,)
    assert t[0] == 999
    assert (np.diff(t) < 0).all()
    assert t[-1] >= 0
    assert (t[-1] == 0) == (source(SCHEDULE, 10)[-1] == 0 and n > 1)
    DPMSolverScheduler().set_timesteps(timesteps=t)


@pytest.mark.parametrize("n", [6, 7, 11])
def test_resampled_grids_keep_their_advantage(natural, n):
    grid = CalibratedGrid(calibrated(a=equidistributed(natural, SCHEDULE, 5), b=equidistributed(natural, SCHEDULE, 8)))
    assert errors(grid(SCHEDULE, n)).mean() < 0.5 * errors(PowerGrid(1)(SCHEDULE, n)).mean()


def test_a_grid_for_another_schedule_or_number_of_steps_out_of_range_is_refused():
    grid = CalibratedGrid(calibrated(gits=[999, 500, 100]))
    with pytest.raises(ValueError, match="between 1 and 1000, got 0"):
        grid(SCHEDULE, 0)
    with pytest.raises(ValueError, match="calibrated for 1000 training timesteps and the noise schedule has 400"):
        grid(NoiseSchedule(400), 5)
