"""Files of policies with random weights, as an agent would write them, made without PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adaptive_diffusion.rl.agent_file import write_agent
from adaptive_diffusion.rl.episodes import fitting
from adaptive_diffusion.rl.sampling_env import SamplingEnv

WIDTH, MEAN, STD = 8, 0.3, 0.5


def random_policy(path: Path, env: SamplingEnv, stop_at: float = 1.0, **header: object) -> Path:
    """A policy of an environment whose actions depend on everything that is observed.

    Args:
        path: The file.
        env: What it is for.
        stop_at: Share of the evaluations after which it stops, where it may.
        **header: What the file says instead of the truth.
    """
    rng, space = np.random.default_rng(3), env.action_space
    (seen,), (actions,) = env.observation_space.shape, space.shape
    hidden, actor = 0.4 * rng.normal(size=(WIDTH, seen)), 0.5 * rng.normal(size=(actions, WIDTH))
    if actions > 1:  # the first unit is a switch, which the share of evaluations turns
        hidden[0], actor[1] = 0.0, 0.0
        hidden[0, 0], actor[1, 0] = 20.0, 1.0
    bias = 0.3 * rng.normal(size=WIDTH)
    bias[0] = -20.0 * (stop_at - MEAN) / STD
    tensors = {
        "policy.mlp_extractor.policy_net.0.weight": hidden,
        "policy.mlp_extractor.policy_net.0.bias": bias,
        "policy.action_net.weight": actor,
        "policy.action_net.bias": np.zeros(actions),
    }
    description = {
        "mean": [MEAN] * seen,
        "std": [STD] * seen,
        "clip": 10.0,
        "low": space.low.tolist(),
        "high": space.high.tolist(),
    }
    known = {"kind": "ppo", **fitting(env), "state": {"policy": description}, **header}
    write_agent(path, known, {name: value.astype(np.float32) for name, value in tensors.items()})
    return path
