"""What the environments share: fixed noises, repeatable episodes, and steps that can be run side by side."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusion.checks import check_choice, check_count
from ..diffusion.guided_model import GuidedModel
from ..grids.base import FixedGrid
from ..io.figures import grid
from ..io.pixels import to_uint8
from ..sampling.rollout import Rollout
from ..solvers.dpm_solver import DPMSolver
from .gym import Env
from .lockstep import Episode, run_together
from .noises import SOLVED_WITHIN, Noises
from .real_noises import noises_for
from .reward import Measurement, Reward, is_timed

Start = tuple[np.ndarray, dict[str, Any]]
Step = tuple[np.ndarray, float, bool, bool, dict[str, Any]]
HELD_OUT_BATCHES = 4


@dataclass
class Spent:
    """Model evaluations, each image counting.

    Attributes:
        asked: What the episodes would have cost if nothing had been remembered; agents are compared at equal `asked`.
        computed: What they did cost.
    """

    asked: int = 0
    computed: int = 0


class SamplingEnv(Env, ABC):
    """An environment that draws a batch of images from fixed noises and scores them.

    Episode i of a seed always has the same noises: `reset(seed=s)` begins at episode 0, every further `reset()` is the
    next one. `reset(options={"batch": b})` takes batch b instead.

    Numbers of an action that lie beyond the action space count as its bounds.

    Args:
        drawing: What is drawn.
        reward: What it is scored by; its metric decides what images are compared with.
        pictures: Images per batch, see `noises_for`.
        batches: Number of fixed batches that episodes are drawn from, >= 1.
        noise_seed: Of these noises, >= 0; held-out ones have the next seed.
        cache: Folder of converged solutions, or None.
        render_mode: `rgb_array`, so that `render` shows the batch, or None.

    Attributes:
        episode_length: Steps of an episode, at most.
        spent: Model evaluations so far, together with those of all siblings.

    Raises:
        ValueError: for another render mode, or a value out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  # as Gymnasium declares it
    episode_length: int

    def __init__(
        self,
        drawing: GuidedModel,
        reward: Reward,
        *,
        pictures: int | None,
        batches: int,
        noise_seed: int,
        cache: str | Path | None,
        render_mode: str | None,
    ):
        self.noises: Noises = noises_for(
            reward.metric,
            drawing,
            pictures=pictures,
            batches=batches,
            seed=noise_seed,
            tolerance=SOLVED_WITHIN,
            cache=cache,
        )
        self.reward, self.spent = reward, Spent()
        if render_mode is not None:
            check_choice("render_mode", render_mode, tuple(self.metadata["render_modes"]))
        self.render_mode = render_mode
        self._states: Any = None  # (B, H, W, C) what there is to be shown
        self.batch = 0
        self._seed: int | None = None
        self._episode = 0
        self._warm: set[int] = set()
        self._splits: dict[int, SamplingEnv] = {}  # by the number of parts; they remember their baselines

    @abstractmethod
    def begin(self) -> Episode[Start]:
        """The run that begins an episode on `self.batch`."""

    @abstractmethod
    def advance(self, action: np.ndarray) -> Episode[Step]:
        """The run of one step."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What decides whether a policy fits: names and numbers, JSON types."""

    @property
    def drawing(self) -> GuidedModel:
        """What is drawn, with the conditions of the images of all batches."""
        return self.noises.drawing

    @property
    def state(self) -> dict[str, int]:
        """Where the sequence of episodes stands: after `restore`, the next `reset` begins the current episode anew."""
        return {"seed": self._seeded(), "episode": max(self._episode - 1, 0)}

    def restore(self, state: dict[str, int]) -> None:
        """Go back to where `state` was; the next `reset` begins that episode."""
        self._seed, self._episode = state["seed"], state["episode"]

    def resetting(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Episode[Start]:
        """`reset` as an episode, for `run_together`."""
        super().reset(seed=seed)
        if seed is not None:
            self._seed, self._episode = seed, 0
        if options and "batch" in options:
            self.batch = check_count("options['batch']", options["batch"], 0, self.noises.batches - 1)
        else:
            rng = np.random.default_rng([self._seeded(), self._episode])
            self.batch = int(rng.integers(self.noises.batches))
            self._episode += 1

        if self.timed and self.batch not in self._warm:
            yield from self._warm_up()
        return (yield from self.begin())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Start:
        """Begin an episode, see the class."""
        return run_together(self.drawing, [self.resetting(seed=seed, options=options)])[0]

    def step(self, action: np.ndarray) -> Step:
        """Take one step.

        `info` of the last one holds `hyperparameters`, `quality`, `speed` in the reward's unit, `evaluations`,
        `seconds`, and of the single images `scores`, their rewards, and `qualities`.
        """
        return run_together(self.drawing, [self.advance(action)])[0]

    def render(self) -> np.ndarray | None:
        """(H, W, 3) uint8: the images of the batch side by side, as they are after the latest `reset` or `step`.

        None without a `render_mode`.

        Raises:
            ValueError: before the first `reset`.
        """
        if self.render_mode is None:
            advice = 'nothing is rendered without a render mode: give the environment render_mode="rgb_array"'
            warnings.warn(advice, stacklevel=2)
            return None
        if self._states is None:
            raise ValueError("there is nothing to render yet: call reset first")
        sheet = grid(to_uint8(self.drawing.images(np.array(self._states))))
        return sheet[..., :3] if sheet.shape[-1] >= 3 else np.repeat(sheet[..., :1], 3, axis=-1)

    def within(self, action: np.ndarray) -> np.ndarray:
        """(A,) float64 action, its numbers within the action space.

        Raises:
            ValueError: for another shape, or NaN.
        """
        space: Any = self.action_space
        action = np.asarray(action, np.float64)
        if action.shape != space.shape or np.isnan(action).any():
            raise ValueError(
                f"an action must be {space.shape[0]} numbers in an array of shape {space.shape}, and none of them NaN; "
                f"beyond {space.low.tolist()} to {space.high.tolist()} they count as these bounds; got {action}"
            )
        return np.clip(action, space.low, space.high)

    def sibling(self) -> SamplingEnv:
        """Another environment of the same kind that shares noises, memory and counters with this one."""
        other = copy.copy(self)
        other._np_random, other._np_random_seed = None, None
        other._seed, other._episode = None, 0
        return other

    def held_out(self, batches: int = HELD_OUT_BATCHES) -> SamplingEnv:
        """The same environment on other noises, with counters of its own."""
        other = self.sibling()
        other.noises, other.spent, other.batch = self.noises.others(batches), Spent(), 0
        other._warm, other._splits = set(), {}
        other.forget()
        return other

    def split(self, parts: int) -> SamplingEnv:
        """The same environment, of which an episode draws a `parts`-th of a batch; it shares noises and counters.

        Raises:
            ValueError: unless the parts are equal and have 2 images or more, or 32 to be compared with real ones.
        """
        if parts == 1:
            return self.sibling()

        if parts not in self._splits:
            self._splits[parts] = part = self.sibling()
            part.noises, part.batch, part._warm, part._splits = self.noises.split(parts), 0, set(), {}
            part.forget()

        other = self._splits[parts].sibling()
        other.spent = self.spent
        return other

    @abstractmethod
    def forget(self) -> None:
        """Drop what is remembered of the noises."""

    @property
    def timed(self) -> bool:
        """Whether seconds count: a baseline and what it is compared with are then drawn in batches of the same size."""
        return is_timed(self.reward)

    def _warm_up(self) -> Episode[None]:
        """One evaluation that nobody times, before the first that somebody does."""
        process = self.drawing.process
        begin = FixedGrid.of(process, [process.num_train_timesteps - 1])
        yield Rollout.begin(begin, DPMSolver(), self.noises.x_T(self.batch), rows=self.noises.rows(self.batch))
        self.spent.computed += self.noises.pictures
        self._warm.add(self.batch)

    def _seeded(self) -> int:
        if self._seed is None:
            self._seed = int(np.random.default_rng().integers(2**31))
        return self._seed

    def _score(self, measured: Measurement, hyperparameters: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Reward and `info` of a finished episode.

        Raises:
            ValueError: for a reward that is not a finite number.
        """
        scores = np.asarray(self.reward(measured), np.float64)
        if not np.isfinite(scores).all():
            given = ", ".join(f"{name}={value}" for name, value in hyperparameters.items())
            raise ValueError(
                f"the reward of {given} on batch {self.batch} is not a finite number ({scores.mean()}): the model or "
                "the solver diverges there, or the reward is at fault; narrow the hyperparameters down, or mend it"
            )

        return float(scores.mean()), {
            "hyperparameters": hyperparameters,
            "quality": float(measured.quality.mean()),
            "speed": measured.speed(self.reward.unit),
            "evaluations": measured.evaluations,
            "seconds": measured.seconds,
            "scores": scores,
            "qualities": measured.quality,
            "batch": self.batch,
        }
