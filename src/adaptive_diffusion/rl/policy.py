"""A trained policy in MLX: what PPO would do, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import UnusableFile, plainly
from .agent_file import read_agent

ACTOR = "mlp_extractor.policy_net"  # Stable-Baselines3's names
LAST = "action_net"


class Policy:
    """The mean action for an observation: a small network of tanh layers, clipped to the action space.

    Args:
        layers: (weight (out, in), bias (out,)) of each layer; all but the last are followed by tanh.
        mean: (O,) subtracted from observations.
        std: (O,) by which they are divided then.
        clip: Largest absolute value of a normalised observation.
        low: (A,) smallest action.
        high: (A,) largest.
    """

    def __init__(
        self,
        layers: Sequence[tuple[mx.array, mx.array]],
        mean: np.ndarray,
        std: np.ndarray,
        clip: float,
        low: np.ndarray,
        high: np.ndarray,
    ):
        self.layers = list(layers)
        self.mean, self.scale = mx.array(mean, mx.float32), mx.array(1 / np.asarray(std), mx.float32)
        self.clip = clip
        self.low, self.high = mx.array(low, mx.float32), mx.array(high, mx.float32)

    def __call__(self, observation: Any) -> mx.array:
        """(..., O) observation -> (..., A) action.

        Raises:
            ValueError: for an observation of another width.
        """
        x = mx.array(observation, dtype=mx.float32)
        if x.shape[-1:] != self.mean.shape:
            raise ValueError(f"the policy observes {self.mean.shape[0]} numbers, got an array of shape {x.shape}")
        x = mx.clip((x - self.mean) * self.scale, -self.clip, self.clip)
        *hidden, (weight, bias) = self.layers
        for w, b in hidden:
            x = mx.tanh(x @ w.T + b)
        return mx.clip(x @ weight.T + bias, self.low, self.high)


def load_policy(path: str | Path, env: Any = None) -> Policy:
    """The policy of an agent that `HyperparameterTuningAgent.save` wrote.

    Args:
        path: The file.
        env: The environment that it is wanted for, whose spaces are then compared, see `wrapped.without_wrappers`; or
            None.

    Raises:
        Unusable: if the file is missing, damaged, holds an agent without a policy, or one for other spaces.
        ValueError: for another kind of environment.
    """
    header, tensors = read_agent(path)
    policy = policy_in(path, header, tensors)
    if env is not None:
        from .episodes import check_made_for
        from .wrapped import without_wrappers

        check_made_for(without_wrappers(env, "env"), str(path), header)
    return policy


def policy_in(path: str | Path, header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Policy:
    """The policy of a file that has been read already, see `load_policy`.

    Args:
        path: The file, for what is said of it.
        header, tensors: What `read_agent` read.

    Raises:
        UnusableFile: if it holds an agent without a policy, or does not describe one.
    """
    if header.get("kind") != "ppo":
        raise UnusableFile(f"{path} holds an agent of the kind {header.get('kind')!r}, which has no policy network")
    try:
        return policy_from(header["state"]["policy"], tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableFile(f"{path} does not describe a policy ({plainly(error)}); train it again") from error


def policy_from(description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Policy:
    """Build a policy.

    Args:
        description: `mean`, `std`, `clip`, `low` and `high` as in `Policy`.
        tensors: Weights under the names of Stable-Baselines3, each after `policy.`.
    """
    names = sorted({name.rpartition(".")[0] for name in tensors if name.startswith(f"policy.{ACTOR}.")}, key=_depth)
    layers = [_layer(tensors, name) for name in [*names, f"policy.{LAST}"]]
    arrays = {name: np.array(description[name]) for name in ("mean", "std", "low", "high")}
    return Policy(layers, clip=description["clip"], **arrays)


def _depth(name: str) -> int:
    return int(name.rpartition(".")[2])


def _layer(tensors: Mapping[str, np.ndarray], name: str) -> tuple[mx.array, mx.array]:
    return mx.array(tensors[f"{name}.weight"]), mx.array(tensors[f"{name}.bias"])
