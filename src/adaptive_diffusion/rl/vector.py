"""The environments as Stable-Baselines3 wants them: many at once, with one evaluation of the model for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from ..diffusion.checks import check_count
from .lockstep import Episode, run_together
from .sampling_env import SamplingEnv

Indices = None | int | Iterable[int]
R = TypeVar("R")


class LockstepVecEnv(VecEnv):
    """Siblings of an environment that take their steps together; no processes, no threads.

    Where the reward counts seconds they take them one after another, as the baseline was drawn: images of larger
    batches cost less time each.

    Where Stable-Baselines3 seeds the environments with s, environment i plays the episodes of seed s + i.

    Args:
        env: The environment.
        num_envs: Number of siblings, >= 1.
    """

    def __init__(self, env: SamplingEnv, num_envs: int = 1):
        self.envs: list[SamplingEnv] = [env.sibling() for _ in range(check_count("num_envs", num_envs, 1))]
        self._model, self._timed = env.drawing, env.timed
        self._actions = np.empty((num_envs, 0))
        super().__init__(num_envs, env.observation_space, env.action_space)

    def reset(self) -> np.ndarray:
        """(num_envs, O) first observations."""
        given = zip(self.envs, self._seeds, self._options, strict=True)
        begun = self._run([env.resetting(seed=seed, options=options) for env, seed, options in given])
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [info for _, info in begun]
        return np.stack([observation for observation, _ in begun])

    def step_async(self, actions: np.ndarray) -> None:
        """(num_envs, A) actions."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """(num_envs, O) observations, (num_envs,) rewards and ends, and infos; episodes that ended begin anew."""
        pairs = zip(self.envs, self._actions, strict=True)
        steps = self._run([env.advance(action) for env, action in pairs])
        ended = np.array([over for _, _, over, _, _ in steps])
        observations = [observation for observation, *_ in steps]
        infos: list[dict[str, Any]] = [{**info, "TimeLimit.truncated": False} for *_, info in steps]
        over = np.flatnonzero(ended)
        begun = self._run([self.envs[i].resetting() for i in over])
        for i, (observation, info) in zip(over, begun, strict=True):
            infos[i]["terminal_observation"] = observations[i]
            observations[i], self.reset_infos[i] = observation, info

        rewards = np.array([reward for _, reward, *_ in steps], np.float32)
        return np.stack(observations), rewards, ended, infos

    def _run(self, episodes: Sequence[Episode[R]]) -> list[R]:
        if self._timed:
            return [run_together(self._model, [episode])[0] for episode in episodes]
        return run_together(self._model, episodes)

    def get_images(self) -> list[np.ndarray | None]:
        """What each environment renders."""
        return [env.render() for env in self.envs]

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute of the environments."""
        return [getattr(self.envs[i], attr_name) for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of the environments."""
        for i in self._get_indices(indices):
            setattr(self.envs[i], attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Indices = None, **kwargs: Any) -> list[Any]:
        """Call a method of the environments."""
        return [getattr(self.envs[i], method_name)(*args, **kwargs) for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Indices = None) -> list[bool]:
        """False: they have no wrappers."""
        return [False for _ in self._get_indices(indices)]
