"""Whole episodes: played, measured on all batches, and replayed; and which environments an agent fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import Unusable
from .sampling_env import SamplingEnv

Act = Callable[[np.ndarray], np.ndarray]

MEANING = ("environment", "domains", "observation", "action", "around")  # what decides what an action means


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


def measure(
    env: SamplingEnv, actor: Callable[[], Act], progress: Callable[[], None] = lambda: None
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of the images of all batches, and the qualities of all batches.

    Args:
        env: The environment.
        actor: Makes what acts in an episode.
        progress: Called after every batch.
    """
    infos = []
    for batch in range(env.noises.batches):
        infos.append(run_episode(env, actor(), options={"batch": batch})[2])
        progress()
    return np.concatenate([info["scores"] for info in infos]), np.concatenate([info["qualities"] for info in infos])


def fitting(env: SamplingEnv) -> dict[str, Any]:
    """What something was made for: what is drawn and from which noises, how it is scored, and what is chosen."""
    observation: Any = env.observation_space
    action: Any = env.action_space
    return {
        "environment": env.describe(),
        "observation": int(np.prod(observation.shape)),
        "action": int(np.prod(action.shape)),
        "domain": env.drawing.domain,
        "model": env.drawing.guided_identity,
        "reward": f"{env.reward}",
        "noises": {name: getattr(env.noises, name) for name in ("seed", "batches", "pictures")},
    }


def check_made_for(env: SamplingEnv, what: str, made_for: Mapping[str, Any], *, exactly: bool = False) -> None:
    """Refuse what was made for another environment.

    Args:
        env: The environment that it is wanted for.
        what: Its name in the message.
        made_for: What `fitting` says of the environment that it was made for.
        exactly: Whether all must be the same, because scores are remembered from there; else it is enough that
            observations and actions mean the same.

    Raises:
        Unusable: naming the first difference.
    """
    own, other = ({**described, **described["environment"]} for described in (fitting(env), made_for))
    for name in (*MEANING, *(own if exactly else ())):
        if own.get(name) != other.get(name):
            advice = "; go on with the same settings, or train from the beginning" if exactly else ""
            raise Unusable(
                f"{what} was made for {name}={other.get(name)}, and this environment has {name}={own.get(name)}{advice}"
            )


def replay(actions: Iterable[np.ndarray]) -> Act:
    """The same actions again, whatever is seen."""
    left = iter(actions)
    return lambda seen: next(left)
