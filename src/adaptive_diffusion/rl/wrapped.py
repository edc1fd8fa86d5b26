"""The environment in what Gymnasium and Stable-Baselines3 put around it."""

from __future__ import annotations

from typing import Any

from .episodes import fitting
from .sampling_env import SamplingEnv

# wrappers that change nothing of what an agent sees, does and gets; named, since some of them would load PyTorch
WATCHING = {"Monitor": "env", "OrderEnforcing": "env", "PassiveEnvChecker": "env", "RecordEpisodeStatistics": "env"}
WATCHING_MANY = {"VecMonitor": "venv"}
MANY = ("DummyVecEnv", "LockstepVecEnv", "SyncVectorEnv")


def without_wrappers(env: Any, name: str) -> SamplingEnv:
    """The environment itself, without wrappers that only watch; agents play on siblings of it, which these do not see.

    Args:
        env: The environment, perhaps in a `Monitor`, as `gymnasium.make` gives it, or in a vector of equal ones.
        name: What the message calls it.

    Raises:
        ValueError: for anything else, e.g. a wrapper that changes observations.
    """
    inner = env
    while not isinstance(inner, SamplingEnv):
        kind = type(inner).__name__
        if kind in MANY:
            inner = _one_of(inner.envs, name)
        elif within := {**WATCHING, **WATCHING_MANY}.get(kind):
            inner = getattr(inner, within)
        else:
            raise ValueError(
                f"{name} must be a DiffusionHyperparameterEnv or a TimestepEnv (a Monitor, gymnasium.make and a "
                f"DummyVecEnv around it are fine, other wrappers are not: the agent normalises by itself), got {kind}"
            )

    return inner


def _one_of(envs: Any, name: str) -> SamplingEnv:
    """The first of several environments, which must all be alike."""
    first, *others = [without_wrappers(env, name) for env in envs]
    if any(fitting(other) != fitting(first) for other in others):
        raise ValueError(f"{name} holds environments that differ; give one of them")
    return first
