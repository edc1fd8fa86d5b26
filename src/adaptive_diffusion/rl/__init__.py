"""Learning how to sample: environments that really draw images, rewards that are measured, and agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy
from . import registration  # noqa: F401  # so that `gymnasium.make` finds the environments

if TYPE_CHECKING:
    from .baselines import CEMAgent, FixedAgent, RandomAgent
    from .environment import DiffusionHyperparameterEnv
    from .policy import load_policy
    from .ppo_agent import HyperparameterTuningAgent
    from .reward import HybridReward, QualityReward, SpeedReward
    from .searches import CMAESAgent, TPEAgent
    from .timestep_environment import TimestepEnv

__all__ = [
    "CEMAgent",
    "CMAESAgent",
    "DiffusionHyperparameterEnv",
    "FixedAgent",
    "HybridReward",
    "HyperparameterTuningAgent",
    "QualityReward",
    "RandomAgent",
    "SpeedReward",
    "TPEAgent",
    "TimestepEnv",
    "load_policy",
]

_HOMES = {  # as the imports above say to type checkers
    "CEMAgent": "baselines",
    "CMAESAgent": "searches",
    "DiffusionHyperparameterEnv": "environment",
    "FixedAgent": "baselines",
    "HybridReward": "reward",
    "HyperparameterTuningAgent": "ppo_agent",
    "QualityReward": "reward",
    "RandomAgent": "baselines",
    "SpeedReward": "reward",
    "TPEAgent": "searches",
    "TimestepEnv": "timestep_environment",
    "load_policy": "policy",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
