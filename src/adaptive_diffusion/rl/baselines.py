"""Agents without a policy network: the cross-entropy method, random search, and no search at all.

They look for one sequence of actions, one per step of an episode, whatever is observed. What PPO is worth shows beside
them, at the same number of model evaluations.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from ..diffusion.checks import check_count, check_number
from .agent import TuningAgent
from .episodes import replay, run_episode
from .gym import Env

INITIAL_STD = 0.6  # of the actions, to begin with


class SearchAgent(TuningAgent):
    """A search over sequences of actions, (episode_length, A).

    Sequences that are compared were tried on the same batches, so that none wins by an easier one. Here, each is tried
    on all batches, and the one with the highest mean return is kept.

    Attributes:
        tried: Mean return and sequence of actions, (episode_length, A), of all that was tried, oldest first.
        best: (episode_length, A) what `predict` answers.
    """

    def __init__(
        self,
        env: Env | None = None,
        *,
        seed: int = 0,
        eval_every: int = 10,
        verbose: int = 0,
        parts: int | None = 1,
    ):
        super().__init__(env, seed=seed, eval_every=eval_every, verbose=verbose, parts=parts)
        self.shape = (self.env.episode_length, *self.env.action_space.shape)  # type: ignore[misc]
        self.best = np.zeros(self.shape)
        self.tried: list[tuple[float, np.ndarray]] = []
        self._taken = 0  # steps on all paths
        self._rng = np.random.default_rng(self.seed)

    def predict(self, observation: np.ndarray, deterministic: bool = True) -> tuple[np.ndarray, None]:
        """The action of the step that the observation is of: the best sequence's, or one that would be tried next.

        See `TuningAgent.predict`.
        """
        used, last = self._observed(observation)[..., 0], self.shape[0] - 1  # share of the evaluations
        step = np.rint(used * (last + 2)).astype(int) - 1
        actions = self._clipped(self.best if deterministic else self._propose(self._predict_rng))
        return actions[np.clip(step, 0, last)], None

    def get_config(self) -> dict[str, Any]:
        """How the agent was made."""
        return {"agent": self.kind, "seed": self.seed, "eval_every": self.eval_every}

    @abstractmethod
    def _propose(self, rng: np.random.Generator) -> np.ndarray:
        """A sequence to try; asking for one changes nothing but `rng`."""

    def _batches(self) -> list[int]:
        """The batches that the next sequence is tried on, a path each."""
        return list(range(self.env.noises.batches))

    def _improve(self) -> None:
        """Take the latest of `tried` into account, and perhaps change `best`."""
        self.best = max(self.tried, key=lambda one: one[0])[1]

    @property
    def episodes_at_once(self) -> int:
        """See `TuningAgent`: those of a sequence, one for each batch that it is tried on."""
        return -(-len(self._batches()) // self.parts)

    def _learn(self, total: int) -> None:
        end = self._taken + total * self.parts
        while self._taken < end and not self._ended:
            self._evaluate_if_due()
            if self._stopped:
                return
            actions = self._clipped(self._propose(self._rng))
            played = [run_episode(self.part, replay(actions), options={"batch": batch}) for batch in self._batches()]
            mean_return = float(np.mean([episode_return for episode_return, _, _ in played]))
            self.tried.append((mean_return, np.asarray(actions, np.float64)))
            self._improve()
            for path_return, done, _ in played:
                self._taken += len(done)
                self._note_path(path_return, len(done))
            self.record.timesteps = self._taken // self.parts

    def _settle_choice(self) -> None:
        """`best` is settled already."""

    def _stream(self, rng: np.random.Generator) -> int:
        """A seed for the next sequence, which no other seed of an agent shares; another each time `predict` asks."""
        asked = [int(rng.integers(2**32))] if rng is self._predict_rng else []
        return int(np.random.SeedSequence([self.seed, len(self.tried), *asked]).generate_state(1)[0])

    def _clipped(self, actions: np.ndarray) -> np.ndarray:
        space: Any = self.env.action_space
        return np.clip(actions, space.low, space.high).astype(np.float32)

    def _state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        state = {"rng": self._rng.bit_generator.state, "best": self.best.tolist(), "taken": self._taken}
        sequences = [[value, actions.tolist()] for value, actions in self.tried]
        return state | {"sequences": sequences}, {"best": self.best.astype(np.float32)}  # a file needs a tensor

    def _restore(self, state: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        best = np.array(state["best"])
        if best.shape != self.shape:
            raise ValueError(f"it holds {best.shape} actions, an episode here takes {self.shape}")
        self.tried = [(float(value), np.array(actions)) for value, actions in state["sequences"]]
        self.best, self._rng.bit_generator.state, self._taken = best, state["rng"], state["taken"]


class RandomAgent(SearchAgent):
    """Random search: normal actions around the prior."""

    kind = "random"

    def __init__(self, env: Env | None = None, *, seed: int = 0, eval_every: int = 10, verbose: int = 0):
        super().__init__(env, seed=seed, eval_every=eval_every, verbose=verbose)

    def _propose(self, rng: np.random.Generator) -> np.ndarray:
        return rng.normal(0, INITIAL_STD, self.shape)


class FixedAgent(SearchAgent):
    """No search: the prior's action 0, always."""

    kind = "fixed"

    def __init__(self, env: Env | None = None, *, seed: int = 0, eval_every: int = 10, verbose: int = 0):
        super().__init__(env, seed=seed, eval_every=eval_every, verbose=verbose)

    def _propose(self, rng: np.random.Generator) -> np.ndarray:
        return self.best

    def _batches(self) -> list[int]:
        return [len(self.record.returns) % self.env.noises.batches]

    def _improve(self) -> None:
        self.tried.clear()  # it is always the same


class GenerationAgent(SearchAgent):
    """A search that learns from a whole generation of sequences at once.

    A generation is tried on one batch, or one part of it, the next one on the next.

    Attributes:
        population: Sequences of a generation.
    """

    population: int

    @abstractmethod
    def _learn_from(self, generation: list[tuple[float, np.ndarray]]) -> None:
        """Take the mean returns of a generation's sequences into account, and change `best`."""

    def get_config(self) -> dict[str, Any]:
        """How the agent was made."""
        return {**super().get_config(), "population": self.population, "parts": self.parts}

    def _state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        state, tensors = super()._state()
        return state | {"population": self.population}, tensors

    def _restore(self, state: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        if (population := state["population"]) != self.population:
            raise ValueError(f"it was trained with population={population}, and this agent has {self.population}")
        super()._restore(state, tensors)

    def _batches(self) -> list[int]:
        return [len(self.tried) // self.population % self.part.noises.batches]

    def _improve(self) -> None:
        if len(self.tried) % self.population == 0:
            self._learn_from(self.tried[-self.population :])


class CEMAgent(GenerationAgent):
    """The cross-entropy method (Rubinstein, 1999): a normal distribution is fitted to the best of each generation.

    Args:
        env: See `TuningAgent`.
        population: Sequences of a generation, >= 2.
        elites: The best of them, in [1, population).
        smoothing: Share of the fitted mean and deviation that is taken over, in (0, 1].
        least_std: Standard deviation below which no action's falls, >= 0.
        seed, eval_every, verbose, parts: See `TuningAgent`.

    Raises:
        ValueError: for a value out of range.
    """

    kind = "cem"

    def __init__(
        self,
        env: Env | None = None,
        population: int = 10,
        elites: int = 3,
        smoothing: float = 0.7,
        least_std: float = 0.05,
        *,
        seed: int = 0,
        eval_every: int = 10,
        verbose: int = 0,
        parts: int | None = None,
    ):
        super().__init__(env, seed=seed, eval_every=eval_every, verbose=verbose, parts=parts)
        self.population = check_count("population", population, 2)
        self.elites = check_count("elites", elites, 1, self.population - 1)
        self.smoothing = check_number("smoothing", smoothing, 0, 1, above=True)
        self.least_std = check_number("least_std", least_std, 0)
        self.std = np.full(self.shape, INITIAL_STD)

    def get_config(self) -> dict[str, Any]:
        """How the agent was made."""
        own = {name: getattr(self, name) for name in ("elites", "smoothing", "least_std")}
        return {**super().get_config(), **own}

    def _propose(self, rng: np.random.Generator) -> np.ndarray:
        return rng.normal(self.best, self.std)

    def _learn_from(self, generation: list[tuple[float, np.ndarray]]) -> None:
        elite = np.stack([actions for _, actions in sorted(generation, key=lambda one: -one[0])[: self.elites]])
        self.best = self.best + self.smoothing * (elite.mean(axis=0) - self.best)
        fitted = np.maximum(elite.std(axis=0), self.least_std)
        self.std = self.std + self.smoothing * (fitted - self.std)

    def _state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        state, tensors = super()._state()
        return state | {"std": self.std.tolist()}, tensors

    def _restore(self, state: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        super()._restore(state, tensors)
        self.std = np.array(state["std"])
