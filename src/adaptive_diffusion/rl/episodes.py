"""Whole episodes: played, measured on all batches, and replayed; and which environments an agent fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import UserError
from .sampling_env import SamplingEnv

Act = Callable[[np.ndarray], np.ndarray]


def run_episode(env: SamplingEnv, act: Act, **reset: Any) -> tuple[float, list[np.ndarray], dict[str, Any]]:
    """One episode: its return, its actions, and what the last step told."""
    observation, _ = env.reset(**reset)
    total, over = 0.0, False
    actions: list[np.ndarray] = []
    info: dict[str, Any] = {}
    while not over:
        actions.append(act(observation))
        observation, reward, over, _, info = env.step(actions[-1])
        total += reward
    return total, actions, info


def measure(env: SamplingEnv, actor: Callable[[], Act]) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of the pictures of all batches, and the qualities of all batches.

    Args:
        env: The environment.
        actor: Makes what acts in an episode.
    """
    infos = [run_episode(env, actor(), options={"batch": batch})[2] for batch in range(env.noises.batches)]
    return np.concatenate([info["scores"] for info in infos]), np.concatenate([info["qualities"] for info in infos])


def fitting(env: SamplingEnv) -> dict[str, Any]:
    """What something was made for: the environment's description, its spaces' sizes, the domain and the model."""
    observation: Any = env.observation_space
    action: Any = env.action_space
    return {
        "environment": env.describe(),
        "observation": int(np.prod(observation.shape)),
        "action": int(np.prod(action.shape)),
        "domain": env.drawing.domain,
        "model": env.drawing.identity,
    }


def check_fits(env: SamplingEnv, what: str, made_for: Mapping[str, Any]) -> None:
    """Refuse what was made for an environment of another kind or with other spaces.

    Args:
        env: The environment that it is wanted for.
        what: Its name in the message.
        made_for: What `fitting` says of the environment that it was made for.

    Raises:
        UserError: naming both.
    """
    ours = fitting(env)
    own, other = ours["environment"], made_for["environment"]
    sizes = [(described["observation"], described["action"]) for described in (ours, made_for)]
    if sizes[0] != sizes[1] or any(own[name] != other[name] for name in ("environment", "domains")):
        raise UserError(
            f"{what} was made for {other['environment']} with domains {other['domains']}, observations of "
            f"{sizes[1][0]} and actions of {sizes[1][1]} numbers; this environment is a "
            f"{own['environment']} with domains {own['domains']}, {sizes[0][0]} and {sizes[0][1]}"
        )


def replay(actions: Iterable[np.ndarray]) -> Act:
    """The same actions again, whatever is seen."""
    left = iter(actions)
    return lambda seen: next(left)
