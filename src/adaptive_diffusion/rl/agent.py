"""What all agents share: training with held-out evaluations, choosing hyperparameters, files."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusion.checks import check_count, check_seed
from ..errors import UnusableFile, plainly
from ..io.progress import Progress
from ..metrics.intervals import standard_error
from .agent_file import checked_path, read_agent, write_agent
from .callbacks import Callbacks, callbacks_of
from .convergence import Evaluation, Record
from .environment import DiffusionHyperparameterEnv
from .episodes import check_made_for, fitting, measure, replay, run_episode
from .gym import Env
from .sampling_env import SamplingEnv, Spent
from .wrapped import without_wrappers

FREQUENT = 20  # evaluations, after which they become rarer
RARER = 10  # times


class TuningAgent(ABC):
    """An agent that learns how to sample in a `SamplingEnv`.

    Agents play on siblings: environments that share noises, memory and counters. A batch may be split into equal parts.
    What an agent does from `reset` to the end on one part is a path; as many paths as there are parts are an episode.
    PPO plays several paths in lockstep, a lane each.

    Args:
        env: The environment, see `wrapped.without_wrappers`; agents draw on siblings of it. None:
            `DiffusionHyperparameterEnv()`.
        seed: Of the agent and of its sequence of episodes, >= 0.
        eval_every: Episodes between two evaluations on held-out noises, >= 1; ten times as many after the first twenty.
        verbose: 0 is silent; 1 shows a progress bar, or without a terminal a line a minute.
        parts: Number of equal parts that a batch is split into, of 2 images or more, or 32 where they are compared
            with real images. The agent tries a different action on each part, at the same cost. None: as many as
            possible.

    Raises:
        ValueError: for another kind of environment, or a value out of range.
    """

    kind: str

    def __init__(
        self,
        env: Env | None = None,
        *,
        seed: int = 0,
        eval_every: int = 10,
        verbose: int = 0,
        parts: int | None = 1,
    ):
        self.env = env = DiffusionHyperparameterEnv() if env is None else without_wrappers(env, "env")
        self.work = env.sibling()  # remembers what the environment does, but counts this agent's evaluations alone
        self.work.spent = Spent()
        self.parts = env.noises.most_parts if parts is None else parts
        self.part = self.work.split(self.parts)  # where paths are tried
        self.seed = check_seed("seed", seed)
        self._predict_rng = np.random.default_rng([self.seed, 1])  # what `predict` samples by: asking moves no training
        self.eval_every = check_count("eval_every", eval_every, 1)
        self.verbose = check_count("verbose", verbose, 0)
        self.record = Record()
        self.eval_env: SamplingEnv | None = None
        self._paths: list[tuple[float, int]] = []  # return and length of those whose episode has not ended
        self._callbacks = Callbacks()
        self._checkpoint: Path | None = None
        self._most: int | None = None
        self._stopped = False
        self._bar: Any = None
        self._since = 0.0

    def train(
        self,
        total_timesteps: int,
        callback: Any = None,
        eval_env: Env | None = None,
        *,
        max_evaluations: int | None = None,
        checkpoint: str | Path | None = None,
    ) -> dict[str, Any]:
        """Train, or go on training.

        Args:
            total_timesteps: Steps of the environment to take now, >= 1; agents finish the episodes that they have
                begun, and environments that play at once take as many each.
            callback: A function, called with metrics by name and the number of episodes after every evaluation, which
                ends training if it returns False; a list of functions; or None. PPO also takes callbacks of
                Stable-Baselines3, whose steps are those of all parts and environments.
            eval_env: Where the agent is evaluated, see `wrapped.without_wrappers`; None: where it was before, or else
                `env.held_out()`, other noises.
            max_evaluations: Ends training too, once the episodes have asked for so many model evaluations, those of
                earlier calls included.
            checkpoint: File that the agent is saved to after every evaluation: what `load` can go on from.

        Returns:
            `convergence_achieved` and `convergence_episode`, see `converged_at`; `total_timesteps` and `episodes`;
            `mean_return` of the last ten episodes; on held-out noises `untrained_score`, `final_score`,
            `final_standard_error`, `final_quality`, `best_score`, `best_episode` and all `evaluations`;
            `model_evaluations` that the episodes asked for, and how many of them were computed, not remembered;
            `seconds`.

        Raises:
            ValueError: for a value out of range, a callback or an environment that is none, an `eval_env` with other
                noises than in earlier training, or a reward that is not a finite number.
        """
        total = check_count("total_timesteps", total_timesteps, 1)
        self._callbacks, self._stopped = self._checked(callbacks_of(callback)), False
        evaluating = None if eval_env is None else without_wrappers(eval_env, "eval_env")
        if evaluating is not None:
            check_made_for(self.env, "eval_env", fitting(evaluating))
        self.eval_env = self._comparable(evaluating or self.eval_env or self.env.held_out())
        self._checkpoint = None if checkpoint is None else checked_path(checkpoint)
        self._most = None if max_evaluations is None else check_count("max_evaluations", max_evaluations, 1)
        if self.verbose:
            self.env.noises.solve()
            self.eval_env.noises.solve()

        self._since = time.perf_counter()
        length = self.env.episode_length
        steps = self.rounded_up(-(-total // length)) * length
        unit = "episode" if length == 1 else "step"
        with Progress(
            self.kind, steps, unit=unit, announced=True, quiet=not self.verbose
        ) as self._bar:  # closes in any case
            self._learn(total)
            self._evaluate_if_due(last=True)

        return self.record.summary()

    def optimize_hyperparameters(self, num_episodes: int = 10, deterministic: bool = True) -> dict[str, Any]:
        """Let the agent choose, and measure its best choice on held-out noises.

        Args:
            num_episodes: Episodes on the environment's own noises, >= 1.
            deterministic: Its best guess every time, not a sample of its policy.

        Returns:
            `best_hyperparameters`: of those that it chose in the episodes, the ones with the highest mean reward on
            all batches of the environment's own noises; `best_quality`, their mean quality on held-out noises, where 0
            is the baseline's and 0.69 half its error, or, to real images, 1 is a distance less by 0.1, with
            `best_quality_error`, its standard error over batches and images; `best_reward` and `best_reward_error`
            there; `evaluations` per image, and `episodes`: hyperparameters, reward, quality, evaluations and batch of
            each.
        """
        check_count("num_episodes", num_episodes, 1)
        found: dict[str, tuple[list[np.ndarray], dict[str, Any]]] = {}
        episodes = []
        trial = self.env.sibling()
        trial.restore({"seed": self.seed, "episode": 0})
        for _ in range(num_episodes):
            reward, actions, info = run_episode(trial, lambda seen: self.predict(seen, deterministic)[0])
            key = json.dumps(info["hyperparameters"], sort_keys=True)
            found.setdefault(key, (actions, info))
            kept = {name: info[name] for name in ("hyperparameters", "quality", "evaluations", "batch")}
            episodes.append({"reward": reward, **kept})

        # on all batches, since a single one may just have been easier
        actions, info = max(found.values(), key=lambda choice: measure(trial, lambda: replay(choice[0]))[0].mean())
        self.eval_env = self.eval_env or self.env.held_out()
        scores, qualities = measure(self.eval_env, lambda: replay(actions))
        return {
            "best_quality": float(qualities.mean()),
            "best_quality_error": standard_error(qualities),
            "best_hyperparameters": info["hyperparameters"],
            "best_reward": float(scores.mean()),
            "best_reward_error": standard_error(scores),
            "evaluations": info["evaluations"],
            "episodes": episodes,
        }

    def save(self, path: str | Path) -> None:
        """Write the agent atomically: a zip of JSON and safetensors, from which `load` goes on where training stood.

        Raises:
            ValueError: if `path` does not end in `.zip`.
        """
        state, tensors = self._state()
        header = {
            "kind": self.kind,
            **fitting(self.env),
            "config": self.get_config(),
            "parts": self.parts,
            "record": self.record.to_dict(),
            "paths": self._paths,
            "state": state,
        }
        write_agent(path, header, tensors)

    def load(self, path: str | Path) -> None:
        """Take over what `save` wrote; training goes on from there.

        Raises:
            Unusable: if the file is missing, damaged, foreign, of another kind of agent, or trained in another
                environment, with other noises or parts, or for another reward. The agent is then as it was.
        """
        header, tensors = read_agent(path)
        if header["kind"] != self.kind:
            raise UnusableFile(f"{path} holds an agent of the kind {header['kind']!r}, and this one is {self.kind!r}")

        check_made_for(self.env, str(path), header, exactly=True)
        if header.get("parts") != self.parts:
            raise UnusableFile(f"{path} was trained with parts={header.get('parts')}, and this agent has {self.parts}")

        before = self._state()
        try:
            record = Record.from_dict(header["record"])
            paths = [(float(value), int(steps)) for value, steps in header["paths"]]
            self._restore(header["state"], tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            self._restore(*before)
            raise UnusableFile(f"{path} does not fit this agent ({plainly(error)}); train it again") from error

        self.record, self._paths = record, paths
        self.work.spent.asked, self.work.spent.computed = record.asked, record.computed

    @abstractmethod
    def predict(self, observation: np.ndarray, deterministic: bool = True) -> tuple[np.ndarray, None]:
        """An action for an observation.

        Args:
            observation: (O,) or (B, O), as the environment gives it.
            deterministic: The best guess, not a sample of what the agent would try. Samples are drawn by the agent's
                seed, whatever is drawn elsewhere, and change nothing in its training.

        Returns:
            (A,) or (B, A) action, and None for the state that agents do not have.

        Raises:
            ValueError: for an observation of another shape.
        """

    def _observed(self, observation: np.ndarray) -> np.ndarray:
        """(O,) or (B, O) float32 observation, checked."""
        observation, shape = np.asarray(observation, np.float32), self.env.observation_space.shape
        if observation.shape[-1:] != shape or observation.ndim > 2:
            raise ValueError(f"an observation must have the shape {shape}, got {observation.shape}")
        return observation

    @abstractmethod
    def get_config(self) -> dict[str, Any]:
        """How the agent was made, JSON types."""

    @abstractmethod
    def _learn(self, total: int) -> None:
        """Take that many steps; call `_evaluate_if_due` between updates and `_note_path` after every episode."""

    @property
    def episodes_at_once(self) -> int:
        """Episodes that are always finished together, so that a training is rounded up to whole numbers of them."""
        return 1

    def rounded_up(self, episodes: int) -> int:
        """The episodes that a training of so many takes."""
        return -(-episodes // self.episodes_at_once) * self.episodes_at_once

    @property
    def batches_per_choice(self) -> int:
        """Batches that are drawn before each evaluation, to settle what `predict` will choose."""
        return 0

    @abstractmethod
    def _settle_choice(self) -> None:
        """Settle, before an evaluation, what `predict` will choose; without the noises that it will be evaluated on."""

    @abstractmethod
    def _state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON types and arrays."""

    @abstractmethod
    def _restore(self, state: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        """Take over what `_state` gave."""

    def _checked(self, callbacks: Callbacks) -> Callbacks:
        """Refuse callbacks that nobody would call."""
        if callbacks.steps:
            raise ValueError(
                "callbacks of Stable-Baselines3 belong to HyperparameterTuningAgent; this agent takes functions of "
                f"(metrics, episode), got {type(callbacks.steps[0]).__name__}"
            )
        return callbacks

    def _comparable(self, eval_env: SamplingEnv) -> SamplingEnv:
        """Where the agent is evaluated, if that is on the images of all evaluations so far, which are compared."""
        done, before = self.record.evaluations, fitting(self.eval_env or eval_env)["noises"]
        noises = fitting(eval_env)["noises"]
        images = noises["batches"] * noises["pictures"]
        if done and (noises != before or len(done[0].scores) != images):
            raise ValueError(
                f"the agent was evaluated on {len(done[0].scores)} held-out images so far, and now it would be on "
                f"{images} others (batches={noises['batches']}, pictures={noises['pictures']}, "
                f"noise_seed={noises['seed']}); give eval_env as in its earlier training"
            )
        return eval_env

    def _note_path(self, path_return: float, steps: int) -> None:
        """Note a path of a part; as many of them as there are parts are an episode."""
        self._paths.append((path_return, steps))
        if len(self._paths) == self.parts:
            returns, lengths = zip(*self._paths, strict=True)
            self.record.returns.append(float(np.mean(returns)))
            self._bar.update(round(float(np.mean(lengths))))
            self._paths = []

    @property
    def _ended(self) -> bool:
        """Whether the callback or the budget of model evaluations ended training."""
        return self._stopped or (self._most is not None and self.work.spent.asked >= self._most)

    def _evaluate_if_due(self, last: bool = False) -> None:
        """Evaluate the agent if it is time to, tell the callback, and save a checkpoint."""
        record, done = self.record, self.record.evaluations
        record.asked, record.computed = self.work.spent.asked, self.work.spent.computed
        now = time.perf_counter()
        record.seconds, self._since = record.seconds + now - self._since, now
        episodes = len(record.returns)
        wait = self.eval_every * (RARER if len(done) > FREQUENT else 1)
        if done and (episodes == done[-1].episode or not (last or episodes >= done[-1].episode + wait)):
            return

        assert self.eval_env is not None
        self._settle_choice()
        record.asked, record.computed = self.work.spent.asked, self.work.spent.computed
        with Progress("held-out noises", self.eval_env.noises.batches, unit="held-out batch", quiet=True) as shown:
            scores, qualities = measure(self.eval_env, lambda: lambda seen: self.predict(seen)[0], shown.update)
        done.append(Evaluation(episodes, record.asked, scores, float(qualities.mean())))
        recent = record.returns[done[-2].episode if len(done) > 1 else 0 :]
        self._bar.show(held_out=f"{done[-1].score:.3f}")
        if self._checkpoint is not None:
            self.save(self._checkpoint)
        if self._callbacks.functions:
            metrics = {
                "held_out/score": done[-1].score,
                "held_out/score_error": done[-1].standard_error,
                "held_out/quality": done[-1].quality,
                "train/model_evaluations": float(record.asked),
                "train/model_evaluations_computed": float(record.computed),
                **({"train/return": float(np.mean(recent))} if recent else {}),
            }
            self._stopped = self._callbacks.end(metrics, episodes)
