"""Distances to real images as a reward: paired with the baseline's, and without converged solutions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rl.closed_form import gaussian
from tiny import tiny_model

from adaptive_diffusion.diffusion.guidance import Constant, Interval
from adaptive_diffusion.errors import UnusableFile
from adaptive_diffusion.rl.baselines import CEMAgent
from adaptive_diffusion.rl.cost import cost
from adaptive_diffusion.rl.drawing import drawing_of
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
from adaptive_diffusion.rl.guidance_knobs import GuidanceKnobs
from adaptive_diffusion.rl.knobs import Knobs, StepKnobs
from adaptive_diffusion.rl.measurement import REAL_UNIT
from adaptive_diffusion.rl.real_noises import COSINE, RealNoises
from adaptive_diffusion.rl.reward import HybridReward, QualityReward
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.configuration import Configuration

REAL = QualityReward("real")


def env(reward=REAL, **more) -> DiffusionHyperparameterEnv:
    settings = {"pictures": 4, "batches": 1, "min_steps": 2, "num_steps": 3, "max_steps": 5, **more}
    return DiffusionHyperparameterEnv(
        drawing_of(tiny_model(content_hash="tiny"), "portraits"), reward=reward, **settings
    )


def test_the_reward_is_paired_with_the_baseline_and_nothing_is_solved_for(monkeypatch):
    monkeypatch.setattr("adaptive_diffusion.rl.noises.converged_pictures", None)
    world = env()
    world.reset(options={"batch": 0})
    assert world.step(np.zeros(7))[1] == 0
    _, reward, _, _, info = world.step(np.array([1, 0, 0, 1, 0, 0, 0]))
    assert info["hyperparameters"]["guidance_weight"] == 2
    assert info["hyperparameters"]["num_steps"] == 5

    model, noises = world.drawing, world.noises
    errors = []
    for weight, steps in ((1.5, 3), (2.0, 5)):
        guided = drawing_of(tiny_model(), "portraits", weight)
        scheduler = Configuration(steps).scheduler(model.settings)
        images = StandardSampler(scheduler).run(guided, noises.x_T(0)).images
        errors.append(noises.errors(0, np.array(images)))
    assert reward == pytest.approx((errors[0] - errors[1]).mean() / REAL_UNIT, rel=1e-3, abs=1e-3)
    np.testing.assert_allclose(info["scores"], (errors[0] - errors[1]) / REAL_UNIT, rtol=1e-2, atol=1e-2)
    assert "none for converged solutions" in cost(CEMAgent(world), 3)


def test_cost_counts_passes():
    world = env(HybridReward(0.0, "real", "passes"))
    world.reset(options={"batch": 0})
    _, reward, _, _, info = world.step(np.array([-1, 0, 0, 0, 0, 0, 0]))
    assert reward == info["speed"] == pytest.approx(0.5)  # no guidance: one pass for two


def test_agreement_with_the_text_is_part_of_it_if_asked():
    drawing = drawing_of(tiny_model(), "portraits")
    plain, reading = (RealNoises(drawing, pictures=4, batches=1, seed=0, metric=m) for m in ("real", "real_text"))
    states = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 3)).astype(np.float32)
    cosines = plain._encoder.scores(states, plain._caption) / 100
    expected = plain.errors(0, states) + (1 - cosines) * REAL_UNIT / COSINE
    np.testing.assert_allclose(reading.errors(0, states), expected)


def test_a_domain_without_real_images_is_refused():
    with pytest.raises(UnusableFile, match="cats"):
        DiffusionHyperparameterEnv(gaussian(domain="cats"), reward=REAL)


def test_images_that_are_no_numbers_are_the_rewards_fault_not_the_encoders():
    noises = RealNoises(drawing_of(tiny_model(), "portraits"), pictures=4, batches=1, seed=0)
    assert np.isnan(noises.errors(0, np.full((4, 8, 8, 3), np.nan))).all()


def test_a_batch_is_large_and_is_split_into_large_parts_only():
    world = env(pictures=None)
    assert world.noises.pictures == 66
    assert CEMAgent(world).parts == 2
    assert world.held_out().noises.errors.__func__ is RealNoises.errors
    with pytest.raises(ValueError, match="into 32 or more each"):
        world.split(33)


def test_small_batches_are_drawn_with_a_warning(caplog):
    drawing = drawing_of(tiny_model(), "portraits")
    for pictures in (5, 5, 32):
        RealNoises(drawing, pictures=pictures, batches=1, seed=0)
    assert len([r for r in caplog.records if "batches of 5 images" in r.message]) == 1
    assert "batches of 32" not in caplog.text


# what actions stand for


def knobs(prior: Configuration | None = None) -> GuidanceKnobs:
    process = drawing_of(tiny_model(), "portraits").process
    return GuidanceKnobs(StepKnobs(Knobs(4, prior or Configuration(10), 20)), 1.5, process)


def chosen(*action: float, prior: Configuration | None = None) -> Configuration:
    return knobs(prior).configuration(np.array(action))


def test_no_action_is_the_prior_whatever_it_is():
    assert chosen(0, 0, 0, 0) == Configuration(10)
    for low, high in ((-2.4, 0.35), (-0.1, 0.05)):
        prior = Configuration(8, guidance_weight=1.37, guidance_low=low, guidance_high=high)
        assert chosen(0, 0, 0, 0, prior=prior) == prior
    unbounded = Configuration(8, guidance_weight=1.37, guidance_low=-math.inf, guidance_high=math.inf)
    assert chosen(0, 0, 0, 0, prior=unbounded) == Configuration(8, guidance_weight=1.37)


def test_guidance_is_turned_in_steps():
    found = chosen(0.42, 0.5, -0.7, -1)
    assert (found.num_steps, found.guidance_weight) == (4, 1.7)
    assert found.guidance == Interval(1.7, found.guidance_low, found.guidance_high)
    process = knobs().process
    first, last = process.log_snr([999, 0])
    assert first < found.guidance_low < 0 < found.guidance_high < last
    assert chosen(0.44, 0.5, -0.7, -1) == found


def test_what_is_the_same_has_one_name():
    assert chosen(-1, 0.5, -0.5, 0) == chosen(-1, 0, 0, 0) == Configuration(10, guidance_weight=1.0)
    assert chosen(0, -1, 1, 0) == Configuration(10)
    assert chosen(0.4, -0.3, 0.3, 0).guidance == Constant(1.7)
    assert chosen(0, 1, -1, 0).guidance_low < chosen(0, 1, -1, 0).guidance_high


def test_an_interval_needs_a_weight():
    with pytest.raises(ValueError, match="needs a guidance_weight"):
        Configuration(guidance_low=0.0)
