"""The announced cost of a training is what it takes."""

from __future__ import annotations

import re

import mlx.core as mx
import pytest

from adaptive_diffusion.diffusion import GuidedModel
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.rl.baselines import CEMAgent, FixedAgent, RandomAgent
from adaptive_diffusion.rl.cost import _looks, cost
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
from adaptive_diffusion.sampling.converged import converged_pictures, solving_evaluations
from adaptive_diffusion.sampling.timing import duration


def bent(x, t, condition=None):
    return x + 0.2 * mx.tanh(3 * x)


@pytest.mark.parametrize("images", [3, 20])
@pytest.mark.parametrize(("tolerance", "which"), [(1e9, 0), (1e-12, 1)])
def test_converged_solutions_take_between_the_fewest_and_the_most(images, tolerance, which):
    model = GuidedModel(bent, NoiseSchedule(300), state_shape=(4, 4, 1))
    converged_pictures(model, model.noise(0, images), tolerance=tolerance)
    assert model.cost.evaluations == solving_evaluations(images, model.process)[which]


@pytest.mark.parametrize(("episodes", "looks"), [(1, 2), (10, 2), (25, 4), (200, 21), (205, 22), (310, 23), (400, 23)])
def test_looks_become_rarer(episodes, looks):
    assert _looks(episodes, 10) == looks


def test_the_sentence_counts_all_and_says_how_long():
    model = GuidedModel(bent, NoiseSchedule(300), state_shape=(4, 4, 1))
    env = DiffusionHyperparameterEnv(model, pictures=4, batches=2)
    steps = env.describe()["max_steps"]
    sentence = cost(RandomAgent(env, eval_every=5), 9, verification_batches=2)
    assert f"10 episodes of 4 images: up to {10 * 4 * steps:,} network evaluations for what is tried" in sentence
    assert f"up to {3 * 4 * 4 * steps:,} for held-out scores" in sentence  # 3 looks at 4 batches of 4 images
    solved = [solving_evaluations(images, model.process) for images in (8, 16, 8)]
    fewest, most = map(sum, zip(*solved, strict=True))
    assert f"{fewest:,} to {most:,} for the converged solutions of 32 images" in sentence
    assert f"about {3 * 2 * 4 * steps:,} for the verification" in sentence  # 3 configurations
    assert re.search(r"pass(es)? each, about .+ as things are$", sentence)


@pytest.mark.parametrize(("agent", "episodes"), [(RandomAgent, 4), (FixedAgent, 3), (CEMAgent, 3)])
def test_as_many_episodes_are_played_as_are_announced(agent, episodes):
    model = GuidedModel(bent, NoiseSchedule(300), state_shape=(4, 4, 1))
    made = agent(DiffusionHyperparameterEnv(model, pictures=4, batches=2))
    assert f"{episodes} episodes of 4 images" in cost(made, 3)
    assert made.train(3)["episodes"] == episodes


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (89, "89 s"), (150, "2 min"), (7200, "2.0 h")])
def test_durations_are_words(seconds, words):
    assert duration(seconds) == words
