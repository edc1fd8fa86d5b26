"""TPE and CMA-ES find a known optimum, repeat themselves, resume to the bit, and say what they need."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from rl.closed_form import gaussian

from adaptive_diffusion.errors import MissingPackage
from adaptive_diffusion.rl.baselines import CEMAgent, RandomAgent
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
from adaptive_diffusion.rl.reward import QualityReward
from adaptive_diffusion.rl.searches import CMAESAgent, TPEAgent
from adaptive_diffusion.rl.timestep_environment import TimestepEnv

BEST = np.array([0.6, -0.3, 0.2, 0.5])


class Bowl(DiffusionHyperparameterEnv):
    """An environment whose reward is known: minus the squared distance to one action."""

    def step(self, action):
        value = -float(((np.asarray(action) - BEST) ** 2).sum())
        self.spent.asked += self.noises.pictures
        scores = np.full(self.noises.pictures, value)
        info = {"hyperparameters": {}, "quality": value, "scores": scores, "qualities": scores, "evaluations": 1}
        return self._observation, value, True, False, info | {"batch": self.batch, "seconds": 0.0, "speed": 0.0}


@pytest.fixture
def bowl() -> Bowl:
    return Bowl(gaussian(), reward=QualityReward(), pictures=4)


@pytest.mark.parametrize("agent", [TPEAgent, CMAESAgent])
def test_they_find_a_known_optimum_and_better_than_they_began(agent, bowl):
    start = -(BEST**2).sum()
    summary = agent(bowl).train(200)
    assert summary["untrained_score"] == pytest.approx(start)
    assert summary["final_score"] > start / 10


def test_at_as_many_evaluations_they_beat_random_search(bowl):
    found = {
        kind: np.mean([kind(bowl, seed=s).train(10**6, max_evaluations=1000)["final_score"] for s in range(3)])
        for kind in (TPEAgent, CMAESAgent, RandomAgent)
    }
    assert min(found[TPEAgent], found[CMAESAgent]) > found[RandomAgent]


@pytest.mark.parametrize("agent", [TPEAgent, CMAESAgent])
def test_training_resumes_to_the_bit(agent, bowl, tmp_path):
    whole, half, other = (agent(bowl, seed=3) for _ in range(3))
    whole.train(40)
    half.train(18)
    half.save(tmp_path / "half.zip")
    other.load(tmp_path / "half.zip")
    other.predict(np.zeros(bowl.observation_space.shape), deterministic=False)  # asking changes nothing
    other.train(22)
    assert [value for value, _ in other.tried] == [value for value, _ in whole.tried]
    np.testing.assert_array_equal(other.best, whole.best)


@pytest.mark.parametrize("agent", [CEMAgent, CMAESAgent])
def test_a_search_of_another_population_is_refused(agent, bowl, tmp_path):
    trained, other = agent(bowl, population=4), agent(bowl, population=5)
    trained.train(12)
    trained.save(tmp_path / "four.zip")
    with pytest.raises(ValueError, match=r"\(it was trained with population=4, and this agent has 5\)"):
        other.load(tmp_path / "four.zip")
    assert other.tried == []


@pytest.mark.parametrize("agent", [TPEAgent, CMAESAgent])
def test_samples_differ_from_each_other(agent, bowl):
    searching = agent(bowl)
    searching.train(20)
    asked = [searching.predict(np.zeros(bowl.observation_space.shape), deterministic=False)[0] for _ in range(3)]
    assert len({action.tobytes() for action in asked}) == 3


@pytest.mark.parametrize("agent", [TPEAgent, CMAESAgent])
def test_seeds_differ(agent, bowl):
    first, second = (agent(bowl, seed=seed) for seed in (0, 1))
    first.train(20)
    second.train(20)
    assert [value for value, _ in first.tried][5:] != [value for value, _ in second.tried][5:]


def test_what_is_installed_is_said(bowl, monkeypatch):
    for name, agent in (("optuna", TPEAgent), ("cmaes", CMAESAgent)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingPackage, match=rf"agent={agent.kind} needs {name}, which is not installed.*tune"):
            agent(bowl)


def test_a_single_number_has_no_covariance():
    with pytest.raises(ValueError, match="two numbers to choose or more"):
        CMAESAgent(TimestepEnv(gaussian(), num_steps=2, pictures=2))
