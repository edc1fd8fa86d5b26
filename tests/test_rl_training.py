"""Agents learn on images whose errors are known, report what they cost, and choose what they were trained for."""

import pytest
from rl.closed_form import gaussian

from adaptive_diffusion.rl.baselines import CEMAgent, FixedAgent, RandomAgent
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
from adaptive_diffusion.rl.ppo_agent import HyperparameterTuningAgent
from adaptive_diffusion.rl.reward import SpeedReward


@pytest.mark.parametrize("agent", [HyperparameterTuningAgent, CEMAgent, RandomAgent])
def test_within_a_hundred_episodes_they_beat_the_prior_on_noises_they_never_saw(agent):
    env = DiffusionHyperparameterEnv(gaussian())
    stats = agent(env, seed=0).train(100 * env.episode_length)
    assert abs(stats["untrained_score"]) < 0.1
    assert stats["final_score"] > 0.3
    assert stats["final_score"] > stats["untrained_score"] + 4 * stats["final_standard_error"]
    assert [e["episode"] for e in stats["evaluations"]] == list(range(0, 101, 10))


@pytest.mark.parametrize("seed", range(5))
def test_ppo_converges_within_a_hundred_episodes(seed):
    stats = HyperparameterTuningAgent(DiffusionHyperparameterEnv(gaussian()), seed=seed).train(100)
    assert stats["convergence_achieved"]
    assert stats["convergence_episode"] <= 80


def test_no_search_stays_at_the_prior_and_never_counts_as_converged():
    stats = FixedAgent(DiffusionHyperparameterEnv(gaussian())).train(50)
    assert (stats["untrained_score"], stats["final_score"], stats["convergence_achieved"]) == (0, 0, False)


def test_the_cross_entropy_method_converges_where_only_speed_counts():
    env = DiffusionHyperparameterEnv(gaussian(), reward=SpeedReward(), pictures=2, batches=1)
    agent = CEMAgent(env, seed=0)
    stats = agent.train(150)
    assert stats["convergence_achieved"]
    assert stats["final_score"] == pytest.approx(1 - 4 / 10)
    assert agent.optimize_hyperparameters(2)["best_hyperparameters"]["num_steps"] == 4
