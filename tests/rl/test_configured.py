"""What the YAML files build is what the classes are without arguments."""

import inspect

import pytest
from rl.closed_form import gaussian
from tiny import configuration

from adaptive_diffusion.rl.baselines import CEMAgent, FixedAgent, RandomAgent
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
from adaptive_diffusion.rl.ppo_agent import HyperparameterTuningAgent
from adaptive_diffusion.rl.reward import HybridReward, QualityReward, SpeedReward
from adaptive_diffusion.runs.build import build

AGENTS = {"ppo": HyperparameterTuningAgent, "cem": CEMAgent, "random": RandomAgent, "fixed": FixedAgent}
REWARDS = {"quality": QualityReward, "speed": SpeedReward, "hybrid": HybridReward}


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent(name, tmp_path):
    cfg, env = configuration("train", tmp_path, f"agent={name}"), DiffusionHyperparameterEnv(gaussian())
    agent = build(cfg, "agent", env=env)
    assert type(agent) is AGENTS[name]
    assert agent.env is env
    defaults = {key: p.default for key, p in inspect.signature(AGENTS[name]).parameters.items()}
    given = {key: value for key, value in cfg.agent.items() if key not in ("_target_", "env", "verbose")}
    assert given == {key: defaults[key] for key in given}


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward(name, tmp_path):
    assert build(configuration("train", tmp_path, f"reward={name}"), "reward") == REWARDS[name]()
