"""The environments as Stable-Baselines3 wants them: many at once, with one evaluation of the model for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv

from ..diffusion.checks import check_count
from .lockstep import Episode, run_together
from .sampling_env import SamplingEnv

R = TypeVar("R")


class LockstepVecEnv(DummyVecEnv):
    """Siblings of an environment that take their steps together; no processes, no threads.

    Where the reward counts seconds they take them one after another, as the baseline was drawn: images of larger
    batches cost less time each.

    Where Stable-Baselines3 seeds the environments with s, environment i plays the episodes of seed s + i.

    Args:
        env: The environment.
        num_envs: Number of siblings, >= 1.
    """

    envs: list[SamplingEnv]  # type: ignore[assignment]  # which are environments of Gymnasium

    def __init__(self, env: SamplingEnv, num_envs: int = 1):
        super().__init__([env.sibling] * check_count("num_envs", num_envs, 1))
        self._model, self._timed = env.drawing, env.timed

    def reset(self) -> np.ndarray:
        """(num_envs, O) first observations."""
        given = zip(self.envs, self._seeds, self._options, strict=True)
        begun = self._run([env.resetting(seed=seed, options=options) for env, seed, options in given])
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [info for _, info in begun]
        return np.stack([observation for observation, _ in begun])

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """(num_envs, O) observations, (num_envs,) rewards and ends, and infos; episodes that ended begin anew."""
        pairs = zip(self.envs, self.actions, strict=True)
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
