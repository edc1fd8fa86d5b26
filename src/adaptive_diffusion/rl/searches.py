"""Searches by Optuna and by cmaes: the tree-structured Parzen estimator, and the evolution of a covariance matrix.

Both are decided by the sequences that were tried and by a seed that moves on with them, so that what is saved is what
was tried, and training resumes to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..diffusion.checks import check_count, check_number
from ..errors import MissingPackage
from ..program import pip_install
from .baselines import GenerationAgent, SearchAgent
from .gym import Env


class TPEAgent(SearchAgent):
    """The tree-structured Parzen estimator (Bergstra et al., 2011) by Optuna, beginning at the prior.

    Args:
        env: See `TuningAgent`.
        startup: Sequences that are drawn at random before the estimator is asked, >= 1.
        seed, eval_every, verbose: See `TuningAgent`.

    Raises:
        ValueError: for a value out of range.
        MissingPackage: where Optuna is not installed.
    """

    kind = "tpe"

    def __init__(
        self, env: Env | None = None, startup: int = 10, *, seed: int = 0, eval_every: int = 10, verbose: int = 0
    ):
        super().__init__(env, seed=seed, eval_every=eval_every, verbose=verbose)
        self.startup = check_count("startup", startup, 1)
        with _installed("agent=tpe"):
            import optuna
        self._optuna: Any = optuna

    def get_config(self) -> dict[str, Any]:
        """How the agent was made."""
        return {**super().get_config(), "startup": self.startup}

    def _propose(self, rng: np.random.Generator) -> np.ndarray:
        if not self.tried:
            return np.zeros(self.shape)

        optuna, bounds = self._optuna, _bounds(self)
        names = [f"{i:03}" for i in range(len(bounds))]
        ranges = zip(names, bounds.tolist(), strict=True)
        space = {name: optuna.distributions.FloatDistribution(low, high) for name, (low, high) in ranges}
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            sampler = optuna.samplers.TPESampler(seed=self._stream(rng), n_startup_trials=self.startup)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            for value, actions in self.tried:
                params = dict(zip(names, actions.ravel().tolist(), strict=True))
                study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=value))
            chosen = study.ask(space).params
        finally:
            optuna.logging.set_verbosity(level)
        return np.reshape([chosen[name] for name in names], self.shape)


class CMAESAgent(GenerationAgent):
    """The evolution strategy with covariance matrix adaptation (Hansen, 2016) by cmaes, beginning around the prior.

    The mean of the distribution is kept.

    Args:
        env: See `TuningAgent`.
        initial_std: Standard deviation of the actions to begin with, > 0.
        population: Sequences of a generation, >= 2; None: 4 + 3 log(numbers of a sequence).
        seed, eval_every, verbose, parts: See `TuningAgent`.

    Raises:
        ValueError: for a value out of range, or an environment with a single number to choose.
        MissingPackage: where cmaes is not installed.
    """

    kind = "cmaes"

    def __init__(
        self,
        env: Env | None = None,
        initial_std: float = 0.5,
        population: int | None = None,
        *,
        seed: int = 0,
        eval_every: int = 10,
        verbose: int = 0,
        parts: int | None = None,
    ):
        super().__init__(env, seed=seed, eval_every=eval_every, verbose=verbose, parts=parts)
        self.initial_std = check_number("initial_std", initial_std, 0, above=True)
        numbers = self.best.size
        if numbers < 2:
            raise ValueError("agent=cmaes adapts covariances and needs two numbers to choose or more; take agent=cem")
        usual = 4 + int(3 * np.log(numbers))
        self.population = usual if population is None else check_count("population", population, 2)
        with _installed("agent=cmaes"):
            import cmaes
        self._cmaes: Any = cmaes
        self._begin()

    def get_config(self) -> dict[str, Any]:
        """How the agent was made."""
        return {**super().get_config(), "initial_std": self.initial_std}

    def _begin(self) -> None:
        """A strategy that has been told what was tried."""
        self._strategy = self._cmaes.CMA(
            mean=np.zeros(self.best.size),
            sigma=self.initial_std,
            bounds=_bounds(self),
            seed=self.seed,
            population_size=self.population,
        )
        for first in range(0, len(self.tried) - self.population + 1, self.population):
            self._tell(self.tried[first : first + self.population])

    def _tell(self, generation: list[tuple[float, np.ndarray]]) -> None:
        self._strategy.tell([(actions.ravel(), -value) for value, actions in generation])

    def _propose(self, rng: np.random.Generator) -> np.ndarray:
        self._strategy.reseed_rng(self._stream(rng))
        return np.reshape(self._strategy.ask(), self.shape)

    def _learn_from(self, generation: list[tuple[float, np.ndarray]]) -> None:
        self._tell(generation)
        self.best = np.reshape(self._strategy.mean, self.shape)

    def _restore(self, state: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        super()._restore(state, tensors)
        self._begin()


def _bounds(agent: SearchAgent) -> np.ndarray:
    """(episode_length * A, 2) lowest and highest number of each action."""
    space: Any = agent.env.action_space
    return np.tile(np.stack([space.low, space.high], axis=1).astype(np.float64), (agent.shape[0], 1))


@contextmanager
def _installed(what: str) -> Iterator[None]:
    """A block that imports a package of the extra `tune`."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"{what} needs {error.name}, which is not installed: {pip_install('tune')}; agent=cem and random do "
            "without it"
        ) from None
