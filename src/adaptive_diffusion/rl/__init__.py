"""Learning how to sample: environments that really draw images, rewards that are measured, and agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy
from . import registration  # noqa: F401  # so that `gymnasium.make` finds the environments

if TYPE_CHECKING:
    from .baselines import CEMAgent as CEMAgent
    from .baselines import FixedAgent as FixedAgent
    from .baselines import RandomAgent as RandomAgent
    from .environment import DiffusionHyperparameterEnv as DiffusionHyperparameterEnv
    from .policy import load_policy as load_policy
    from .ppo_agent import HyperparameterTuningAgent as HyperparameterTuningAgent
    from .reward import HybridReward as HybridReward
    from .reward import QualityReward as QualityReward
    from .reward import SpeedReward as SpeedReward
    from .searches import CMAESAgent as CMAESAgent
    from .searches import TPEAgent as TPEAgent
    from .timestep_environment import TimestepEnv as TimestepEnv

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

__all__ = [*_HOMES]
__getattr__, __dir__ = lazy(__name__, _HOMES)
