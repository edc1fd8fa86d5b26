"""Fitted and learned steps: the reference is the ODE, weights do what they say, and what is learned is better."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import mlx.core as mx
import numpy as np
import pytest
from gaussian import ode_solution, predict
from scipy.fft import dctn, idctn

from adaptive_diffusion.calibration.calibrate import CLASSICAL, ScheduleCalibration, conditioned
from adaptive_diffusion.calibration.fitting import Solution, drawn, fit_corrections
from adaptive_diffusion.calibration.learning import learn
from adaptive_diffusion.calibration.quick import QuickCalibration
from adaptive_diffusion.calibration.reference import record
from adaptive_diffusion.diffusion import node_at
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.errors import Unusable
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.grids.schedule_file import save_schedules
from adaptive_diffusion.grids.spacings import BlendedGrid, PowerGrid
from adaptive_diffusion.sampling.converged import paired_rmse
from adaptive_diffusion.sampling.rollout import InBatches
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DDIMScheduler, DPMSolverScheduler
from adaptive_diffusion.solvers.fitted import levels_of, multistep_rows

SHAPE = (6, 6, 3)
RADIUS = np.hypot(*np.mgrid[:6, :6])[..., None]
NATURAL = 2 / (1 + RADIUS) ** 1.5 * np.array([1, 0.5, 0.25])  # standard deviation per frequency and colour
SCHEDULER = DDIMScheduler(clip_sample=False)
SCHEDULE = SCHEDULER.schedule


def natural(x, t, condition=None):
    """The exact eps of images whose frequencies are independent."""
    spectrum = dctn(np.array(x, np.float64), axes=(1, 2, 3), norm="ortho")
    eps = predict(SCHEDULER, float(t[0]), spectrum, std=NATURAL)
    return mx.array(idctn(eps, axes=(1, 2, 3), norm="ortho"), mx.float32)


def bent(x, t, condition=None):
    """The same, saturated: no solver's weights are exact for it, and images differ."""
    return natural(x, t) + 0.2 * mx.tanh(3 * x)


def noises(seed, count):
    return normal(image_keys(seed, range(count)), SHAPE)


def reference_of(denoiser, seed=0, count=12, nodes=64):
    predictor = InBatches(SCHEDULER.guided(denoiser))
    return predictor, record(predictor, noises(seed, count), nodes)


def test_the_reference_is_the_ode_at_its_nodes_between_them_and_at_the_end():
    _, reference = reference_of(natural, nodes=128)
    spectrum = dctn(np.array(noises(0, 12), np.float64), axes=(1, 2, 3), norm="ortho")
    solver = DDIMScheduler()
    solver.timesteps = np.array([999.0])
    for t in (998.7, 640.0, 200.5, 3.3):
        exact = ode_solution(solver, spectrum, t, std=NATURAL) / SCHEDULE.alpha(t)
        found = dctn(reference.at(float(np.exp(-SCHEDULE.log_snr(t)))), axes=(1, 2, 3), norm="ortho")
        np.testing.assert_allclose(found, exact, atol=2e-3 * np.abs(exact).max())
    clean = dctn(reference.images, axes=(1, 2, 3), norm="ortho")
    np.testing.assert_allclose(clean, ode_solution(solver, spectrum, None, std=NATURAL), atol=5e-3)
    for i in (0, 50, 127):
        np.testing.assert_allclose(reference.at(reference.levels[i]), reference.states[i], rtol=1e-5)
    assert len(reference[:5]) == 5
    np.testing.assert_array_equal(reference[:5].images, reference.images[:5])


def test_a_model_in_batches_takes_images_each_with_its_condition():
    seen, counted = [], []

    def denoiser(x, t, condition):
        seen.append(np.array(condition).tolist())
        return natural(x, t)

    states = noises(0, 5)
    node = node_at(SCHEDULE, 500.0)
    found = InBatches(SCHEDULER.guided(denoiser, mx.arange(5)), 2, counted.append).denoise(states, node, np.arange(5))
    assert (seen, counted) == ([[0, 1], [2, 3], [4]], [2, 2, 1])
    alone = SCHEDULER.guided(natural).denoise(states, node, np.arange(5))
    np.testing.assert_allclose(found.x0, alone.x0, atol=1e-5)


def test_without_corrections_a_step_is_that_of_ddim():
    timesteps = PowerGrid(2)(SCHEDULE, 4)
    rows = multistep_rows(levels_of(SCHEDULE, timesteps), np.zeros((4, 5)))
    predictor = InBatches(SCHEDULER.guided(bent))
    found = drawn(predictor, np.array(noises(0, 3)) / SCHEDULE.alpha(999.0), Solution(timesteps, np.zeros((4, 5))))
    ddim = DDIMScheduler(clip_sample=False)
    ddim.set_timesteps(timesteps=timesteps)
    np.testing.assert_allclose(found, np.array(StandardSampler(ddim).run(bent, noises(0, 3)).images), atol=1e-4)
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    np.testing.assert_array_equal(rows[-1], [0, 1, 0, 0, 0])


def test_rows_are_the_formula():
    levels, c = np.array([3.0, 1.0]), np.array([[0.1, 0.2, 0.3, -0.4]])
    rng = np.random.default_rng(0)
    x, d0, d1, d2 = rng.standard_normal((4, 7))
    expected = x / 3 + 2 / 3 * (d0 + 0.1 * d0 + 0.2 * (x - d0) / np.sqrt(9.25) + 0.3 * (d0 - d1) - 0.4 * (d0 - d2))
    np.testing.assert_allclose(multistep_rows(levels, c)[0] @ np.stack([x, d0, d1, d2]), expected)


def test_weights_that_can_be_exact_are():
    """Of data with one variance every prediction is a multiple of the state."""

    def white(x, t, condition=None):
        return mx.array(predict(SCHEDULER, float(t[0]), np.array(x, np.float64)), mx.float32)

    predictor, reference = reference_of(white, nodes=256)
    timesteps = PowerGrid(2)(SCHEDULE, 4)
    fitted = Solution(timesteps, fit_corrections(predictor, reference, timesteps))
    plain = Solution(timesteps, np.zeros((4, 5)))
    assert paired_rmse(drawn(predictor, reference.noise, fitted), reference.images).mean() < 2e-3
    assert paired_rmse(drawn(predictor, reference.noise, plain), reference.images).mean() > 0.05


def error_on(model, images):
    """The mean error of a solution on some images."""
    return lambda solution: float(paired_rmse(drawn(model, images.noise, solution), images.images).mean())


@pytest.mark.parametrize(("n", "share"), [(3, 1), (5, 0.9), (8, 0.9)])
def test_fitted_weights_are_better_than_2m_and_learned_ones_still_better_from_new_noises(n, share):
    predictor, reference = reference_of(bent)
    _, unseen = reference_of(bent, seed=1)
    timesteps = BlendedGrid()(SCHEDULE, n)
    fitted = Solution(timesteps, fit_corrections(predictor, reference, timesteps))
    learned = learn(predictor, reference, error_on(predictor, reference_of(bent, seed=2)[1]), fitted, iterations=2)
    solver = DPMSolverScheduler(clip_sample=False)
    solver.set_timesteps(timesteps=timesteps)
    classical = np.array(StandardSampler(solver).run(bent, noises(1, 12)).images)
    errors = [classical, drawn(predictor, unseen.noise, fitted), drawn(predictor, unseen.noise, learned)]
    first, second, third = (paired_rmse(pictures, unseen.images).mean() for pictures in errors)
    assert second < 0.5 * first
    assert third < share * second
    own = [paired_rmse(drawn(predictor, reference.noise, s), reference.images) for s in (fitted, learned)]
    assert np.sqrt((own[1] ** 2).mean()) < np.sqrt((own[0] ** 2).mean())
    assert learned.timesteps[0] == 999
    assert (np.diff(learned.timesteps) < 0).all()
    assert learned.timesteps[-1] >= 0


def test_learning_never_makes_it_worse_and_stops_where_nothing_is_gained(monkeypatch):
    predictor, reference = reference_of(bent, count=4)
    timesteps = BlendedGrid()(SCHEDULE, 3)
    start = Solution(timesteps, fit_corrections(predictor, reference, timesteps))
    assert learn(predictor, reference, lambda tried: pytest.fail("judged"), start, iterations=0) is start
    counted = []
    counting = InBatches(SCHEDULER.guided(bent), progress=counted.append)
    monkeypatch.setattr("adaptive_diffusion.calibration.learning.LEAST_GAIN", 0.5)
    learn(counting, reference, error_on(counting, reference), start, iterations=50)
    assert sum(counted) < 5 * 4 * 3 * 12  # a few iterations of some 11 columns, not 50


@pytest.mark.parametrize("seed", [2, 3])
def test_learning_from_a_few_extreme_images_is_stopped_by_others(seed):
    """The errors of a few images are far beyond those of the rest, and decide the squares that learning falls by."""

    def heavy_tailed(x, t, condition=None):
        states = np.array(x, np.float64)
        extreme = np.abs(states.mean(axis=(1, 2, 3), keepdims=True)) * np.sqrt(states[0].size) > 1.5
        return natural(x, t) + mx.array(np.where(extreme, 0.5, 0.02) * np.sin(4 * states), mx.float32)

    predictor, reference = reference_of(heavy_tailed, seed=seed, count=4)
    held_out, fresh = (reference_of(heavy_tailed, seed=s, count=24)[1] for s in (10, 11))
    timesteps = BlendedGrid()(SCHEDULE, 4)
    start = Solution(timesteps, fit_corrections(predictor, reference, timesteps))
    learned = learn(predictor, reference, error_on(predictor, held_out), start, iterations=3)
    for unseen in (held_out, fresh):
        before, after = (paired_rmse(drawn(predictor, unseen.noise, s), unseen.images).mean() for s in (start, learned))
        assert after <= before


def problem(denoiser=bent):
    return replace(
        SCHEDULER.guided(denoiser),
        state_shape=SHAPE,
        identity="0123456789abcdef",
        domain="landscapes",
        guidance_scale=1.5,
    )


SMALL = ScheduleCalibration(steps=(3, 5), learned_steps=(3,), noises=10, held_out=8, learned_noises=6, iterations=1)


@pytest.fixture(scope="module")
def schedule():
    return list(SMALL.calibrate(problem()))[-1]


@pytest.mark.parametrize("recipe", [SMALL, QuickCalibration(steps=(30,))], ids=["thorough", "quick"])
def test_a_model_of_fewer_timesteps_than_a_reference_trajectory_is_refused_before_it_is_evaluated(recipe):
    model = replace(problem(), process=NoiseSchedule(50))
    with pytest.raises(Unusable, match=r"50 training .* with task.nodes=50 or less and task.steps of at most 25 \(in"):
        next(recipe.calibrate(model))
    with pytest.raises(Unusable, match=r"7 training timesteps .* takes at least 8 to be calibrated"):
        next(recipe.calibrate(replace(model, process=NoiseSchedule(7))))
    assert model.cost.evaluations == 0


@pytest.mark.parametrize("given", [mx.array([[1], [2]]), mx.array([[0.5]])], ids=["two labels", "a text"])
def test_conditions_that_no_first_prediction_belongs_to_are_given_in_turn(given):
    def shifted(x, t, condition=None):
        return bent(x, t) + 0.01 * condition.astype(mx.float32)[:, :, None, None]

    model = problem(shifted).with_condition(given)
    assert np.array_equal(conditioned(model, 0, 5).condition, [given[i % len(given)].tolist() for i in range(5)])
    *_, found = SMALL.calibrate(model)
    counted = model.cost.evaluations
    assert found.first is None
    assert 0.9 * SMALL.evaluations(model) <= counted <= SMALL.evaluations(model) < SMALL.evaluations()


def test_class_ids_that_all_images_share_are_those_of_more_held_out_noises_than_fitted_ones():
    """The stored first prediction is judged on the held-out noises by the model of the fitted ones."""
    model = problem().with_condition(mx.array([[1]]))
    *_, found = replace(SMALL, steps=(3,), noises=6, held_out=8).calibrate(model)
    assert found.first is not None
    assert found.first.condition == (1,)


def test_a_calibration_judges_all_rivals_on_held_out_noises_and_keeps_the_best(schedule):
    assert set(schedule.steps) == {3, 5}
    fitted = {"fitted blended", "fitted equidistributed", "fitted dynamic programme"}
    assert set(schedule.steps[5].scores) == {*CLASSICAL, *fitted}
    assert set(schedule.steps[3].scores) == {*CLASSICAL, *fitted, "learned"}
    for steps in schedule.steps.values():
        means = {name: score.mean for name, score in steps.scores.items()}
        assert steps.rule == min(means, key=means.__getitem__)
        assert means[steps.rule] < 0.6 * min(means[name] for name in CLASSICAL)
    assert (schedule.noises, schedule.held_out, schedule.domain) == (10, 8, "landscapes")


@pytest.mark.parametrize("n", [3, 5])
def test_the_adaptive_scheduler_draws_what_was_judged(schedule, n):
    """Its error on the held-out noises is the score in the file, by a scheduler and a sampler in MLX."""
    scheduler = AdaptiveScheduler(num_inference_steps=n, calibration=schedule, clip_sample=False)
    drawn = np.array(StandardSampler(scheduler).run(bent, noises(SMALL.seed + 1, 8)).images)
    _, unseen = reference_of(bent, SMALL.seed + 1, 8)
    steps = schedule.steps[n]
    assert paired_rmse(drawn, unseen.images).mean() == pytest.approx(steps.scores[steps.rule].mean, rel=0.01)
    assert scheduler.get_schedule_info()["rule"] == steps.rule
    assert scheduler.get_schedule_info()["power"] is None


def test_the_scheduler_survives_json_and_another_number_of_steps_is_resampled(schedule, tmp_path):
    scheduler = AdaptiveScheduler(num_inference_steps=5, calibration=schedule, clip_sample=False)
    again = AdaptiveScheduler.load(scheduler.save(tmp_path))
    assert again.calibration == scheduler.calibration
    np.testing.assert_array_equal(
        *(np.array(StandardSampler(s).run(bent, noises(3, 2)).images) for s in (scheduler, again))
    )
    scheduler.set_timesteps(4)
    assert (len(scheduler), scheduler.get_schedule_info()["rule"]) == (4, "resampled")
    plain = DPMSolverScheduler(clip_sample=False)
    plain.set_timesteps(timesteps=scheduler.timesteps)
    np.testing.assert_array_equal(
        *(np.array(StandardSampler(s).run(bent, noises(3, 2)).images) for s in (scheduler, plain))
    )


def test_complexity_leaves_calibrated_steps_where_they_are_and_one_s_own_timesteps_have_no_calibration(schedule):
    scheduler = AdaptiveScheduler(num_inference_steps=5, calibration=schedule)
    calibrated = scheduler.timesteps
    scheduler.set_timesteps(5, complexity=0.1)
    np.testing.assert_array_equal(scheduler.timesteps, calibrated)
    assert scheduler.get_schedule_info()["complexity"] is None
    scheduler.set_timesteps(timesteps=[999.0, 500.0, 100.0])
    assert scheduler.get_schedule_info()["rule"] is None


def test_a_number_of_steps_that_is_refused_changes_nothing(schedule):
    scheduler = AdaptiveScheduler(num_inference_steps=5, calibration=schedule)
    before = np.array(StandardSampler(scheduler).run(bent, noises(3, 2)).images)
    for refused in ({"num_inference_steps": 5000}, {"timesteps": [5.0, 6.0]}):
        with pytest.raises(ValueError, match="must"):
            scheduler.set_timesteps(**refused)
    np.testing.assert_array_equal(np.array(StandardSampler(scheduler).run(bent, noises(3, 2)).images), before)
    assert scheduler.get_schedule_info()["rule"] == schedule.steps[5].rule


def test_threshold_zero_is_ddim_on_the_calibrated_grid(schedule):
    scheduler = AdaptiveScheduler(1000, 5, 0.0, calibration=schedule, clip_sample=False)
    ddim = DDIMScheduler(clip_sample=False)
    ddim.set_timesteps(timesteps=scheduler.timesteps)
    x, y = noises(3, 2), noises(3, 2)
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(bent(x, mx.array([t])), t, x)
        y = ddim.step(bent(y, mx.array([t])), t, y)
        if i == 0:
            y = x  # the first step has nothing to check itself with
        np.testing.assert_allclose(np.array(x), np.array(y), atol=1e-5)
    assert scheduler.get_schedule_info()["first_order_fraction"] == 1


def test_pictures_that_leave_the_batch_leave_the_others_as_they_were(schedule):
    scheduler = AdaptiveScheduler(num_inference_steps=5, calibration=schedule)
    whole = np.array(StandardSampler(scheduler).run(bent, noises(3, 4)).images)
    scheduler.set_timesteps(5)
    x = noises(3, 4)
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(bent(x, mx.full((len(x),), float(t))), t, x)
        if i == 2:
            scheduler.select(np.array([True, False, True, False]))
            x = x[mx.array([0, 2])]
    np.testing.assert_allclose(np.array(x), whole[[0, 2]], atol=1e-6)


def test_a_run_that_begins_in_the_middle_takes_steps_of_the_textbook(schedule):
    """The weights of a step in the middle would be wrong without the predictions that they are for."""
    scheduler = AdaptiveScheduler(num_inference_steps=5, calibration=schedule, clip_sample=False)
    ddim = DDIMScheduler(clip_sample=False)
    ddim.set_timesteps(timesteps=scheduler.timesteps)
    t, x = scheduler.timesteps[3], noises(3, 2)
    np.testing.assert_allclose(*(np.array(s.step(bent(x, mx.array([t])), t, x)) for s in (scheduler, ddim)), atol=1e-5)


def test_a_schedule_that_knows_the_number_of_steps_comes_before_one_of_nearer_guidance(schedule, tmp_path):
    file, known = tmp_path / "schedules.json", min(schedule.steps)
    few = replace(schedule, guidance_scale=2.0, steps={known: schedule.steps[known]})
    save_schedules(file, [schedule, few, replace(few, guidance_scale=9.0)])
    given, other = (file, schedule.model, "landscapes", 2.0), max(schedule.steps)
    assert other not in few.steps
    assert [find_schedule(*given, num_steps=n).guidance_scale for n in (known, other, 77, None)] == [2, 1.5, 2, 2]
    assert find_schedule(*given[:3], 20.0, num_steps=other).guidance_scale == 9, "weights that do not hold do not count"


def test_of_calibrations_with_as_few_differences_that_of_the_domain_is_taken(schedule, tmp_path):
    file = tmp_path / "schedules.json"
    prompt = replace(schedule, model="hash float32 64x64 prompt", domain="landscapes")
    precision = replace(schedule, model="hash bfloat16 64x64", domain="abstract")
    save_schedules(file, [prompt, precision, replace(precision, model="hash bfloat16 32x32")])
    found = [find_schedule(file, "hash float32 64x64", domain, 1.5) for domain in ("landscapes", "abstract")]
    assert [f.otherwise for f in found] == ["another negative prompt", "precision bfloat16 (here float32)"]


def test_a_calibration_of_another_noise_schedule_or_of_no_kind_is_refused(schedule):
    with pytest.raises(ValueError, match="the calibration is for 1000 training timesteps, not 400"):
        AdaptiveScheduler(400, calibration=schedule)
    with pytest.raises(ValueError, match="calibration is no calibrated schedule: it lacks 'model', 'guidance_scale'"):
        AdaptiveScheduler(calibration={"steps": {}})


def test_a_schedule_is_found_by_model_domain_and_guidance(schedule, tmp_path):
    file = tmp_path / "schedules.json"
    save_schedules(file, [schedule, replace(schedule, guidance_scale=3.0)])
    given = (schedule.model, "landscapes")
    assert [find_schedule(file, *given, g).guidance_scale for g in (0.0, 1.5, 2.0, 2.5, 9.0)] == [1.5, 1.5, 1.5, 3, 3]
    found = find_schedule(file, *given, 1.5)
    assert asdict(found)["steps"].keys() == asdict(schedule)["steps"].keys()
    assert find_schedule(file, schedule.model, "portraits", 2.9).guidance_scale == 3  # another domain's
    with pytest.raises(ValueError, match="has schedules of the model 0123456789ab, and this one is fedcba987"):
        find_schedule(file, "fedcba9876543210", "landscapes", 1.5)
    with pytest.raises(ValueError, match="guidance_scale must be"):
        find_schedule(file, *given, float("nan"))
    assert find_schedule(None, "fedcba9876543210", "landscapes", 1.5) is None
    save_schedules(file, [schedule, replace(schedule, model="fedcba9876543210", guidance_scale=3.0)])
    assert find_schedule(file, *given, 3.0).guidance_scale == 1.5
    assert find_schedule(file, "fedcba9876543210", "landscapes", 1.5).guidance_scale == 3.0


def test_a_domain_whose_name_may_be_misspelt_is_told_of(schedule, tmp_path, caplog):
    save_schedules(tmp_path / "s.json", [schedule])
    for domain in ("landscapes", "shapes of mine", "landscape", "landscape"):
        assert find_schedule(tmp_path / "s.json", schedule.model, domain, 1.5).domain == "landscapes"
    assert [record.message for record in caplog.records] == [
        "no steps are calibrated for a domain 'landscape', those of another are taken; 'landscapes' has some"
    ]


def test_what_are_no_schedules_are_not_saved(schedule, tmp_path):
    for given in ("x", [schedule, "x"]):
        with pytest.raises(ValueError, match="schedules must be a list of calibrated schedules, got 'x'"):
            save_schedules(tmp_path / "s.json", given)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("guidance", "near"), [(0.7, False), (0.75, True), (1.0, True), (3.0, True), (3.1, False)])
def test_weights_are_used_near_the_guidance_that_they_are_for(schedule, guidance, near):
    """Elsewhere it is DPM-Solver++(2M) on the calibrated timesteps."""
    scheduler = AdaptiveScheduler(num_inference_steps=5, calibration=schedule.drawn_at(guidance), clip_sample=False)
    plain = DPMSolverScheduler(clip_sample=False)
    plain.set_timesteps(timesteps=schedule.steps[5].timesteps)
    drawn, textbook = (np.array(StandardSampler(s).run(bent, noises(3, 2)).images) for s in (scheduler, plain))
    assert (np.abs(drawn - textbook).max() > 1e-3) == near
    info = scheduler.get_schedule_info()
    assert ("timesteps only" in info["calibration"]) != near
    assert "landscapes at guidance 1.5" in info["calibration"]
    again = AdaptiveScheduler.from_config(json.loads(json.dumps(scheduler.config)))
    np.testing.assert_array_equal(np.array(StandardSampler(again).run(bent, noises(3, 2)).images), drawn)


def test_what_is_drawn_with_is_no_part_of_the_file(schedule, tmp_path):
    save_schedules(tmp_path / "one.json", [schedule])
    save_schedules(tmp_path / "two.json", [schedule.drawn_at(7.5)])
    assert (tmp_path / "one.json").read_text() == (tmp_path / "two.json").read_text()


@pytest.mark.parametrize(
    ("row", "sentence"),
    [([0.0] * 4 + [float("nan")], "finite"), ([0.0], "5 rows of equally many"), ([0.0] * 9, "5 rows of equally many")],
)
def test_corrections_that_do_not_fit_are_refused(schedule, tmp_path, row, sentence):
    file = tmp_path / "schedules.json"
    save_schedules(file, [schedule])
    content = json.loads(file.read_text())
    content["schedules"][0]["steps"]["5"]["corrections"][2] = row
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"is damaged .*{sentence}"):
        find_schedule(file, schedule.model, "landscapes", 1.5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": ()}, "steps must name at least one"),
        ({"steps": (8, 8)}, "steps must name each value once, got 8, 8"),
        ({"learned_steps": (5, 8, 5)}, "learned_steps must name each value once"),
        ({"steps": (61,), "learned_steps": ()}, "steps must be a whole number, between 2 and 60, got 61"),
        ({"held_out": 1}, "held_out must be"),
        ({"learned_noises": 11}, "learned_noises must be a whole number, between 2 and 10, got 11"),
        ({"iterations": -1}, "iterations must be"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(SMALL, **changes)
