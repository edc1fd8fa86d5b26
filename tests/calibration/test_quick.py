"""The quick recipe: few evaluations, and a result that is at least as good as the classical grids."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from test_fitting import SCHEDULE, SCHEDULER, SHAPE, bent, natural, noises

from adaptive_diffusion import AdaptiveScheduler, PlainModel, StandardSampler, calibrate_model
from adaptive_diffusion.calibration.calibrate import CLASSICAL, ScheduleCalibration
from adaptive_diffusion.calibration.even import EvenGrid
from adaptive_diffusion.calibration.fitting import Solution, errors, fit_corrections
from adaptive_diffusion.calibration.identity import weights_hash
from adaptive_diffusion.calibration.quick import FEWEST, QuickCalibration, mean_grid
from adaptive_diffusion.calibration.reference import record
from adaptive_diffusion.calibration.trajectory import equidistributed, measure_trajectory
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.grids.candidates import in_words
from adaptive_diffusion.grids.schedule_file import load_schedules, save_schedules
from adaptive_diffusion.grids.spacings import BlendedGrid, LogSNRGrid, PowerGrid
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.sampling.converged import paired_rmse
from adaptive_diffusion.sampling.rollout import InBatches


def test_it_costs_what_it_says():
    counted: list[int] = []
    settings = QuickCalibration(steps=(3, 6), noises=5, held_out=3, batch_size=4)
    calibrate_model(bent, SHAPE, steps=(3, 6), noises=5, held_out=3, batch_size=4, progress=counted.append)
    assert sum(counted) == settings.evaluations() == 8 * 20 + 9 * (5 + 3 * 4)


@pytest.mark.parametrize(
    ("steps", "noises", "most"), [((5,), 8, 280), ((8,), 7, 300), ((10,), 6, 300), ((5, 8, 10), 8, 568)]
)
def test_it_is_cheap_and_fits_on_as_many_noises_as_that_allows(steps, noises, most):
    recipe = QuickCalibration(steps=steps)
    assert recipe.evaluations() == most <= (300 if len(steps) == 1 else 600)
    assert recipe.fitted_on == noises == recipe.only(steps[:1]).fitted_on
    assert ScheduleCalibration(steps=steps).evaluations() > 10 * most


def test_what_does_not_fit_in_its_evaluations_is_calibrated_on_the_fewest_noises():
    assert QuickCalibration(steps=(30,)).fitted_on == FEWEST
    assert QuickCalibration(steps=(5,), noises=2).fitted_on == 2


def test_weights_of_few_noises_are_shrunk():
    model, timesteps = InBatches(SCHEDULER.guided(bent)), BlendedGrid()(SCHEDULE, 6)
    reference = record(model, noises(4, 3), nodes=16)
    free, shrunk = (np.abs(fit_corrections(model, reference, timesteps, ridge=r)).sum() for r in (1e-4, 1e4))
    assert shrunk < 0.01 * free


def test_a_model_that_is_only_named_is_recognised_by_what_it_predicts(tmp_path, caplog):
    calls = []

    def retrained(x, t, condition=None):
        calls.append(len(x))
        return 1.1 * bent(x, t)

    def half(x, t, condition=None):
        return bent(x, t).astype(mx.bfloat16)

    save_schedules(tmp_path / "s.json", [calibrate_model(bent, SHAPE, bounded=False, steps=3, identity="mine")])
    schedule = find_schedule(tmp_path / "s.json", "mine", "", 1.0)
    scheduler = AdaptiveScheduler(num_inference_steps=3, calibration=schedule, clip_sample=False)
    for denoiser in (bent, half):
        StandardSampler(scheduler).run(denoiser, noises(0, 2))
        assert scheduler.origin == f"calibrated for this model at guidance 1: {in_words('quick')}"
    assert caplog.text == ""

    for _ in range(2):
        StandardSampler(scheduler).run(retrained, noises(0, 2))
    assert calls == [1, *[2] * 6], "one evaluation more, once"
    only = in_words("quick", weights=False)
    assert scheduler.origin == (
        f"calibrated for this model at guidance 1 with other predictions; its timesteps only: {only}"
    )
    assert caplog.text.count("mine predicts otherwise than when its steps were calibrated") == 1
    scheduler.suit("mine", None, 1.0)
    StandardSampler(scheduler).run(bent, noises(0, 2))
    assert "timesteps only" not in scheduler.origin


def test_with_another_noise_process_the_timesteps_are_used_alone_and_a_warning_says_so(tmp_path, caplog):
    process = {"beta_schedule": "squaredcos_cap_v2"}
    save_schedules(
        tmp_path / "s.json", [calibrate_model(bent, SHAPE, steps=3, noises=2, nodes=8, noise_schedule=process)]
    )
    (schedule,) = load_schedules(tmp_path / "s.json")
    own, other = (AdaptiveScheduler(num_inference_steps=3, calibration=schedule, **given) for given in (process, {}))
    assert own.origin == f"calibrated for this model at guidance 1: {in_words('quick')}"
    only = "calibrated for this model at guidance 1 with another noise process; its timesteps only"
    assert other.origin == f"{only}: {in_words('quick', weights=False)}"
    assert other.get_schedule_info()["calibration"] == only
    assert AdaptiveScheduler(calibration=replace(schedule, log_snr=None)).calibration.weights_hold, "of an older file"

    for _ in range(2):
        StandardSampler(other).run(bent, noises(0, 2))
    assert caplog.text.count("calibrated for another noise process than the scheduler's") == 1
    other.suit("", None, 1.0)
    assert other.origin.startswith(only)
    other.fit(GuidedModel(bent, own.schedule, state_shape=SHAPE))
    assert other.origin == own.origin


def test_a_run_without_a_condition_says_nothing_of_the_runs_with_one(caplog):
    def conditional(x, t, condition=None):
        return bent(x, t)

    def retrained(x, t, condition=None):
        return 1.1 * bent(x, t)

    given = {"condition": mx.array([[1]]), "identity": "mine", "bounded": False}
    schedule = calibrate_model(conditional, SHAPE, steps=3, noises=2, nodes=8, **given)
    sampler = StandardSampler(AdaptiveScheduler(num_inference_steps=3, calibration=schedule, clip_sample=False))
    for condition, told in ((None, 0), (given["condition"], 1), (None, 1), (given["condition"], 1)):
        sampler.run(retrained, noises(0, 2), condition=condition)
        assert caplog.text.count("predicts otherwise than when its steps were calibrated") == told


def test_a_run_at_another_size_says_nothing_of_the_runs_at_its_own(caplog):
    def network(x, t, condition=None):
        return 0.5 * x

    def retrained(x, t, condition=None):
        return 0.6 * x

    schedule = calibrate_model(network, SHAPE, steps=3, noises=2, nodes=8, identity="mine", bounded=False)
    unsized = replace(schedule, state_shape=None)  # of another program
    sampler = StandardSampler(AdaptiveScheduler(num_inference_steps=3, calibration=unsized, clip_sample=False))
    for shape, told in (((4, 4, SHAPE[2]), 0), (SHAPE, 1)):
        sampler.run(retrained, normal(image_keys(0, [0]), shape))
        assert caplog.text.count("predicts otherwise than when its steps were calibrated") == told


def test_at_another_size_only_the_timesteps_are_used_and_a_warning_says_so(tmp_path, caplog):
    network = network_of(nn.Conv2d(3, 3, 1))  # its weights are its identity, and say no size
    save_schedules(tmp_path / "s.json", [calibrate_model(network, SHAPE, steps=3, noises=2, nodes=8)])
    (schedule,) = load_schedules(tmp_path / "s.json")
    sampler = StandardSampler(AdaptiveScheduler(num_inference_steps=3, calibration=schedule))
    sampler.sample(network, 1, SHAPE[:2])
    assert "timesteps only" not in sampler.origin
    assert caplog.text == ""

    for _ in range(2):
        sampler.sample(network, 1, (16, 8))
    assert "with another size; its timesteps only" in sampler.origin
    assert caplog.messages == [
        f"the steps were calibrated for states of {SHAPE[0]}x{SHAPE[1]}, and these are 16x8, so that only their "
        "timesteps are used: calibrate the model at this size"
    ]
    sampler.sample(network, 1, SHAPE[:2])
    assert "timesteps only" not in sampler.origin


def test_the_shipped_model_draws_at_another_size_with_the_timesteps_alone():
    network = load_builtin_model()
    model = GuidedModel.from_model(network, network.condition("landscapes", None, None), domain="landscapes")
    sampler = StandardSampler(AdaptiveScheduler(num_inference_steps=5, first_evaluation="stored"))
    sampler.sample(model, 1)
    assert "calibrated for landscapes at guidance 1.5" in sampler.origin
    assert "timesteps only" not in sampler.origin
    sampler.run(model, normal(image_keys(0, [0]), (16, 16, 3)))
    assert "with another size; its timesteps only" in sampler.origin


def test_a_hash_of_weights_needs_no_fingerprint():
    network = nn.Conv2d(3, 3, 1)

    def calibrated(**given):
        steps = np.int64(2)  # as of a sum
        return calibrate_model(network_of(network), SHAPE, steps=steps, noises=2, nodes=8, **given).fingerprint

    assert calibrated() is None
    assert calibrated(identity="mine") is not None
    assert calibrate_model(bent, SHAPE, steps=[2.0], noises=2, nodes=8).fingerprint is not None


def network_of(module):
    """A denoiser that shows the weights of a module."""

    class Shown(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def __call__(self, x, t, condition=None):
            return self.module(x)

    return Shown()


def test_it_is_better_than_every_classical_grid_on_other_noises():
    schedule = calibrate_model(bent, SHAPE, bounded=False, steps=(4, 6))
    model = InBatches(SCHEDULER.guided(bent))
    unseen = record(model, noises(77, 16))
    for n, steps in schedule.steps.items():
        classical = [
            errors(model, unseen, Solution(grid(SCHEDULE, n))).mean()
            for grid in (PowerGrid(1), PowerGrid(2), LogSNRGrid(), BlendedGrid())
        ]
        found = errors(model, unseen, Solution(np.array(steps.timesteps), np.array(steps.corrections))).mean()
        assert found < 0.8 * min(classical)


def test_a_classical_grid_is_kept_where_it_wins(monkeypatch):
    from adaptive_diffusion.calibration import quick

    monkeypatch.setattr(quick, "fit_corrections", lambda *_, **__: np.ones((4, 5)))  # weights that are no good
    (steps,) = calibrate_model(bent, SHAPE, bounded=False, steps=(4,)).steps.values()
    assert steps.corrections is None
    assert steps.rule in CLASSICAL
    assert steps.scores["quick"].mean > steps.scores[steps.rule].mean


def test_the_even_grid_is_the_equidistributed_one_of_the_fine_measurement():
    model = SCHEDULER.guided(natural)
    reference = record(InBatches(model), noises(3, 16), nodes=32)
    profile = measure_trajectory(model, noises(3, 16))
    for n in (4, 8):
        found, fine = EvenGrid.of(reference)(SCHEDULE, n), equidistributed(profile, SCHEDULE, n)
        distance = np.abs(SCHEDULE.log_snr(found) - SCHEDULE.log_snr(fine)).max()
        assert distance < 0.15 * np.ptp(SCHEDULE.log_snr(fine)) / n


def test_the_mean_of_grids_is_taken_in_log_snr():
    a, b = PowerGrid(2)(SCHEDULE, 5), LogSNRGrid()(SCHEDULE, 5)
    mean = mean_grid(SCHEDULE, a, b, 0.25)
    assert mean[0] == a[0] == SCHEDULE.num_train_timesteps - 1
    expected = 0.75 * SCHEDULE.log_snr(a[1:]) + 0.25 * SCHEDULE.log_snr(b[1:])
    assert SCHEDULE.log_snr(mean[1:]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": ()}, "at least one number"),
        ({"steps": (8, 5, 8)}, "steps must name each value once, got 8, 5, 8"),
        ({"steps": (1,)}, "steps must be"),
        ({"noises": 1}, "noises must be"),
        ({"held_out": 1}, "held_out must be"),
        ({"nodes": 7}, "nodes must be"),
        ({"ridge": -1}, "ridge must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_a_bad_value_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        QuickCalibration(**change)


class Network(torch.nn.Module):
    """A small convolution of PyTorch that predicts eps."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x + 0.3 * torch.tanh(self.convolution(x)) * (1 - t[:, None, None, None] / 1000)


def test_a_pytorch_module_is_calibrated_behind_a_small_wrapper(tmp_path):
    network = Network()

    def denoiser(x, t, condition=None):
        with torch.no_grad():
            prediction = network(torch.tensor(np.array(x)).permute(0, 3, 1, 2), torch.tensor(np.array(t)))
        return mx.array(prediction.permute(0, 2, 3, 1).numpy())

    schedule = calibrate_model(denoiser, SHAPE, steps=[5], identity=weights_hash(network), bounded=False)
    scheduler = AdaptiveScheduler(calibration=schedule, clip_sample=False)
    scheduler.set_timesteps(5)
    images = StandardSampler(scheduler).run(denoiser, noises(5, 4)).images

    quadratic = AdaptiveScheduler(calibration=None, clip_sample=False)
    quadratic.set_timesteps(5)
    reference = record(InBatches(scheduler.guided(denoiser)), noises(5, 4)).images
    plain = StandardSampler(quadratic).run(denoiser, noises(5, 4)).images
    assert paired_rmse(np.array(images), reference).mean() < paired_rmse(np.array(plain), reference).mean()

    save_schedules(tmp_path / "mine.json", [schedule])
    assert find_schedule(tmp_path / "mine.json", weights_hash(network), "", 1.0) == schedule


@pytest.mark.parametrize(
    ("denoiser", "error", "sentence"),
    [
        (lambda x, t, condition=None: x * mx.nan, FloatingPointError, "not finite"),
        (lambda x, t, condition=None: x[..., :1], ValueError, r"predicts \(9, 6, 6, 1\) for states of \(9, 6, 6, 3\)"),
    ],
)
def test_a_denoiser_that_is_none_is_refused(denoiser, error, sentence):
    with pytest.raises(error, match=sentence):
        calibrate_model(denoiser, SHAPE)


@pytest.mark.parametrize(
    ("shape", "steps", "sentence"),
    [
        ((8, 8), 4, r"state_shape must be \(height, width, channels\), got \(8, 8\)"),
        ((8, 8, -3), 4, "channels of state_shape must be a whole number, at least 1, got -3"),
        (SHAPE, 5.5, "steps must be a whole number, between 2 and 500, got 5.5"),
    ],
)
def test_a_shape_that_is_none_and_half_a_step_are_refused(shape, steps, sentence):
    with pytest.raises(ValueError, match=sentence):
        calibrate_model(bent, shape, steps=steps)


def test_guidance_without_a_condition_is_refused():
    with pytest.raises(ValueError, match="guides nothing without a condition"):
        calibrate_model(bent, SHAPE, guidance_scale=3.0)


def test_the_identity_is_the_hash_of_the_weights():
    linear = nn.Linear(2, 3)
    before = weights_hash(linear)
    assert len(before) == 64
    linear.weight = linear.weight + 1
    assert weights_hash(linear) != before
    assert weights_hash(bent) == ""


def test_a_function_and_a_shape_make_a_model():
    model = PlainModel(bent, SHAPE, "mine", prediction_type="epsilon")
    assert (model.identity, model.metadata["prediction_type"]) == ("mine", "epsilon")
    assert model.condition("landscapes", None, "") == ()
