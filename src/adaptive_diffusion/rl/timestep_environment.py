"""TimestepEnv: choose the next timestep while a batch is being drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_count
from ..diffusion.evaluation import Denoised
from ..diffusion.guidance import Guidance
from ..diffusion.guided_model import GuidedModel
from ..diffusion.node import Node
from ..grids.base import FixedGrid, Spacing, spaced
from ..grids.policy import RESIDUAL, PolicyGrid, Residuals
from ..grids.spacings import PowerGrid
from ..sampling.rollout import Rollout
from ..schedulers.classes import DPMSolverScheduler
from ..solvers.dpm_solver import DPMSolver
from ..types import PictureModel
from .drawing import drawing_of
from .gym import Box
from .lockstep import Episode, drawing_run
from .measurement import Sampled
from .reward import GivenReward, QualityReward, reward_of
from .sampling_env import SamplingEnv, Start, Step

SOLVER = DPMSolver(lower_order_final=False)


class TimestepEnv(SamplingEnv):
    """One step, one model evaluation of a batch: DPM-Solver++(2M) to a timestep of the agent's choice.

    Action: a number in [-2, 2], added to the logit of the fraction of the remaining way in log-SNR, down to t = 0, that
    the prior grid would go from its own node of that number: 0 all the way is the prior grid itself, which is also the
    baseline of the reward. (Stable-Baselines3 recommends [-1, 1]; the policies that ship were trained with 2.) With
    `stopping` a second number, in [-1, 1]: above 0.5 the episode ends, with the clean prediction there is, and the
    action is not charged.

    Observation, nothing of which costs an evaluation: evaluations used / budget; way gone in log-SNR, 0 to 1; root mean
    square of the last change of the clean prediction, and of the difference of the solver's two orders in its last
    step, each log10 / 4 + 1 (0.0001 to 1 is 0 to 1); last step in log-SNR / 10; standard deviation of the clean
    prediction; evaluations left / 20; the domain as one-hot.

    The reward comes at the end. The first evaluation of an episode, always at T - 1, is part of `reset`; it is the same
    for every episode of a batch, and remembered.

    Args:
        model: As for `DiffusionHyperparameterEnv`.
        domain: Likewise.
        reward: See `reward.py`; None: `QualityReward()`. With a fixed budget, speed differs only through `stopping`.
        grid: The prior.
        num_steps: N, the budget: evaluations of an episode, >= 2. An episode has N - 1 steps.
        stopping: Whether an agent may stop early.
        guidance_scale: As for `DiffusionHyperparameterEnv`.
        pictures: Images per batch, >= 2.
        batches: Number of fixed batches that episodes are drawn from, >= 1.
        noise_seed: Of these noises; held-out ones have the next seed.
        cache: As for `DiffusionHyperparameterEnv`.
        render_mode: `rgb_array` or None, see `render`: the clean predictions after every evaluation.

    Raises:
        ValueError: for a value out of range, or a model or domain that does not fit.
    """

    def __init__(
        self,
        model: PictureModel | GuidedModel | None = None,
        domain: str | None = None,
        reward: GivenReward | None = None,
        *,
        grid: Spacing | None = None,
        num_steps: int = 8,
        stopping: bool = False,
        guidance_scale: float | Guidance | None = None,
        pictures: int = 16,
        batches: int = 4,
        noise_seed: int = 1000,
        cache: str | Path | None = None,
        render_mode: str | None = None,
    ):
        drawing, reward = drawing_of(model, domain, guidance_scale), reward_of(reward or QualityReward())
        super().__init__(
            drawing,
            reward,
            pictures=pictures,
            batches=batches,
            noise_seed=noise_seed,
            cache=cache,
            render_mode=render_mode,
        )
        self.schedule = drawing.process
        self.budget = check_count("num_steps", num_steps, 2, self.schedule.num_train_timesteps)
        self.episode_length = self.budget - 1
        self.stopping = bool(stopping)
        self._prior = spaced(grid or PowerGrid(2), self.schedule, self.budget)
        first = self.schedule.num_train_timesteps - 1
        if self._prior[0] != first:
            raise ValueError(f"the grid must begin at timestep {first}, as episodes do, got {self._prior[0]:g}")
        self.route = Residuals(self.schedule, self._prior, drawing.one_hot, self.stopping)
        high = np.array([RESIDUAL, 1.0][: 1 + self.stopping], np.float32)
        self.action_space = Box(-high, high, dtype=np.float32)
        self.observation_space = Box(-10.0, 10.0, (self.route.width,), np.float32)
        self.forget()

    def describe(self) -> dict[str, Any]:
        """See `SamplingEnv`."""
        return {
            "environment": type(self).__name__,
            "domains": list(self.drawing.domains),
            "num_steps": self.budget,
            "stopping": self.stopping,
            "prior": self._prior.tolist(),
        }

    def forget(self) -> None:
        """See `SamplingEnv`."""
        self._beginnings: dict[int, tuple[mx.array, float]] = {}
        self._baselines: dict[int, Sampled] = {}
        self._at: Rollout | None = None  # where the batch was evaluated last, while an episode goes on

    def sibling(self) -> TimestepEnv:
        """See `SamplingEnv`; an episode that this one is in the middle of stays its own."""
        other = super().sibling()
        assert isinstance(other, TimestepEnv)
        other._at = None
        return other

    def begin(self) -> Episode[Start]:
        """See `SamplingEnv`."""
        noises, batch = self.noises, self.batch
        at = Rollout.begin(FixedGrid((self.route.begin,)), SOLVER, noises.x_T(batch), rows=noises.rows(batch))
        if self.batch not in self._beginnings:
            drawn = yield at
            self.spent.computed += self.noises.pictures
            self._beginnings[self.batch] = (drawn.x0, drawn.seconds)

        self._states, self._seconds = self._beginnings[self.batch]
        self._at = at
        self.spent.asked += self.noises.pictures
        return self._observe(at), {"batch": self.batch}

    def advance(self, action: np.ndarray) -> Episode[Step]:
        """See `SamplingEnv`."""
        action, at = self.within(action), self._at
        if at is None:
            raise ValueError("the episode is over, or has not begun: call reset first")
        if self.route.stops(action):
            return (yield from self._end(at))

        # the solver reads clean predictions only, no eps
        step = replace(at, grid=PolicyGrid(self.route, lambda seen: action)).step(Denoised(self._states, self._states))
        # the run ends with the clean prediction at the node that it leads to
        self._at = at = replace(step, grid=FixedGrid((*step.trail, step.node)))
        drawn = yield at
        self._states, self._seconds = drawn.x0, self._seconds + drawn.seconds
        self.spent.asked += self.noises.pictures
        self.spent.computed += self.noises.pictures

        if len(_seen_at(at)) == self.budget:
            return (yield from self._end(at))
        return self._observe(at), 0.0, False, False, {"batch": self.batch}

    def timesteps(self) -> list[float]:
        """Timesteps of the current episode so far."""
        return [] if self._at is None else [node.t for node in _seen_at(self._at)]

    def _observe(self, at: Rollout) -> np.ndarray:
        """(7 + D,) float32, see the class."""
        return self.route.observe(_seen_at(at), self._states, at.grid_memory)

    def _end(self, at: Rollout) -> Episode[Step]:
        """Score the clean prediction."""
        noises, batch = self.noises, self.batch
        if batch not in self._baselines:
            solver = DPMSolverScheduler(**self.drawing.settings)
            solver.set_timesteps(timesteps=self._prior)
            drawn = yield from drawing_run(solver, noises.x_T(batch), noises.rows(batch))
            self._baselines[batch] = noises.sampled(batch, drawn)
            self.spent.computed += self.budget * noises.pictures

        seen = _seen_at(at)
        used, passes = len(seen), sum(self.drawing.passes_at(node) for node in seen)
        sampled = Sampled(noises.errors(batch, np.array(self._states)), used, self._seconds, passes)
        measured = noises.measurement.of(sampled, self._baselines[batch])
        reward, info = self._score(measured, {"num_steps": used, "timesteps": self.timesteps()})
        self._at = None
        return self._observe(at), reward, True, False, info


def _seen_at(at: Rollout) -> tuple[Node, ...]:
    """Nodes where the batch was evaluated, the latest included."""
    return (*at.trail, at.node)
