"""A policy network of PPO as it is at one moment of its training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from . import torch_state
from .policy import Policy, policy_from
from .sampling_env import SamplingEnv

CLIP_OBSERVATION = 10.0
VARIANCE_FLOOR = 0.01  # so that what never changed in training is not blown up


@dataclass(frozen=True, eq=False)
class PolicySnapshot:
    """A policy that stays as it is while training goes on.

    Attributes:
        description, tensors: See `policy_from`.
        scores: (n,) rewards of its mean actions on the images of the environment's own batches, if measured.
    """

    description: dict[str, Any]
    tensors: dict[str, np.ndarray]
    scores: np.ndarray | None = None

    @classmethod
    def of(cls, network: Any, env: SamplingEnv, normalisation: Any) -> PolicySnapshot:
        """A copy of a policy network of Stable-Baselines3.

        Args:
            network: The policy network.
            env: The environment that it was trained in.
            normalisation: Running mean and variance of the observations; None: they are taken as they are.
        """
        rms, space = normalisation, cast(Any, env.action_space)
        width = env.observation_space.shape or (0,)
        description = {
            "mean": (np.zeros(width) if rms is None else rms.mean).tolist(),
            "std": (np.ones(width) if rms is None else np.sqrt(rms.var + VARIANCE_FLOOR)).tolist(),
            "clip": float(np.finfo(np.float32).max) if rms is None else CLIP_OBSERVATION,
            "low": space.low.tolist(),
            "high": space.high.tolist(),
        }
        return cls(description, {f"policy.{n}": torch_state.array(v) for n, v in network.state_dict().items()})

    @cached_property
    def policy(self) -> Policy:
        """In MLX."""
        return policy_from(self.description, self.tensors)
