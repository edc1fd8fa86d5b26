"""Grids that a policy chooses, node by node, from what the images show on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from ..diffusion.node import CLEAN, Node, node_at
from ..diffusion.schedule import NoiseSchedule
from .base import GridMemory

RESIDUAL = 2.0  # largest change of a logit
STOP = 0.5  # of an action's second number, from which on the run ends
_LEAST = 1e-6  # of the fraction of the way, and one minus it: prior grids may end at t = 0


@dataclass(frozen=True, eq=False)
class Residuals:
    """What a policy observes, and what its actions mean: residuals around a prior grid.

    Args:
        process: The noise process of the model.
        prior: (N,) timesteps from T - 1 on: where actions of 0 lead.
        one_hot: (D,) 1 at the domain that is drawn.
        stopping: Whether actions have a second number, which ends the run.
    """

    process: NoiseSchedule
    prior: np.ndarray
    one_hot: np.ndarray
    stopping: bool = False
    begin: Node = field(init=False)  # at T - 1
    last: float = field(init=False)  # log-SNR at t = 0
    logits: np.ndarray = field(init=False)  # (N - 1,) of the part of the remaining way that the prior's steps go

    def __post_init__(self) -> None:
        last = float(self.process.log_snr(0))
        log_snr = self.process.log_snr(self.prior)
        fraction = np.clip(np.diff(log_snr) / (last - log_snr[:-1]), _LEAST, 1 - _LEAST)
        logits = np.log(fraction / (1 - fraction))
        begin = node_at(self.process, self.process.num_train_timesteps - 1)
        for name, value in {"begin": begin, "last": last, "logits": logits}.items():
            object.__setattr__(self, name, value)

    @property
    def budget(self) -> int:
        """N, the evaluations of a run that is not stopped."""
        return len(self.prior)

    @property
    def width(self) -> int:
        """Numbers of an observation."""
        return 7 + len(self.one_hot)

    def observe(self, trail: Sequence[Node], x0: mx.array, memory: GridMemory) -> np.ndarray:
        """What a policy sees, statistics over the whole batch; see `TimestepEnv`.

        Args:
            trail: Nodes where the model was evaluated, at least one.
            x0: (B, H, W, C) clean predictions at the last one.
            memory: The clean predictions before, newest first, as far as there are two.

        Returns:
            (7 + D,) float32.

        Raises:
            FloatingPointError: for clean predictions of NaN or infinity.
        """
        change = x0 - memory[0] if memory else x0
        disagreement = self._disagreement(trail, memory)
        # one array, so that the host waits once
        moved, differ, spread = map(float, np.array(mx.stack([_rms(change), _rms(disagreement), mx.std(x0)])))

        if not np.isfinite((moved, differ, spread)).all():
            raise FloatingPointError(
                f"the clean predictions at timestep {trail[-1].t:g} hold NaN or infinity; check the model's weights "
                "and its precision"
            )

        used, now, first = len(trail), trail[-1].log_snr, self.begin.log_snr
        seen = [
            used / self.budget,
            (now - first) / (self.last - first),
            math.log10(moved + 1e-4) / 4 + 1,
            math.log10(differ + 1e-4) / 4 + 1,
            (now - trail[-2].log_snr) / 10 if used > 1 else 0.0,
            spread,
            (self.budget - used) / 20,
        ]
        return np.clip(np.append(seen, self.one_hot), -10, 10).astype(np.float32)

    def stops(self, action: np.ndarray) -> bool:
        """Whether an action ends the run, with the clean predictions there are."""
        return self.stopping and bool(action[1] > STOP)

    def node(self, trail: Sequence[Node], action: np.ndarray) -> Node:
        """Where an action leads: its first number is added to the prior's logit of the remaining way in log-SNR."""
        now = trail[-1].log_snr
        logit = self.logits[len(trail) - 1] + float(np.clip(action[0], -RESIDUAL, RESIDUAL))
        then = now + (self.last - now) / (1 + math.exp(-logit))
        t = float(self.process.timestep(then))
        return Node(float(self.process.alpha(t)), float(self.process.sigma(t)), then, t)

    @staticmethod
    def _disagreement(trail: Sequence[Node], memory: GridMemory) -> mx.array:
        """By how much the two orders of DPM-Solver++(2M) differed in the latest step, without the factor alpha."""
        if len(memory) < 2:
            return mx.array(0.0)

        earlier, before, now = (node.log_snr for node in trail[-3:])
        if before <= earlier:  # float64 does not tell them apart
            return mx.array(0.0)

        # the weight of the older prediction, as in `multistep_weights`
        h = now - before
        return (math.expm1(-h) * h / 2 / (before - earlier)) * (memory[1] - memory[0])


@dataclass(frozen=True, eq=False)
class PolicyGrid:
    """Nodes that a policy chooses from what the whole batch shows; so an image depends on its batch.

    Args:
        residuals: What the policy observes, and what its actions mean.
        policy: (7 + D,) observation -> action.
    """

    residuals: Residuals
    policy: Callable[[np.ndarray], mx.array | np.ndarray]

    @property
    def steps(self) -> int | None:
        """See `Grid`; None for a policy that may stop."""
        return None if self.residuals.stopping else self.residuals.budget

    def next(self, trail: Sequence[Node], x0: mx.array | None, memory: GridMemory) -> tuple[Node, GridMemory]:
        """See `Grid`."""
        residuals = self.residuals
        if x0 is None:
            return residuals.begin, ()
        if len(trail) >= residuals.budget:
            return CLEAN, ()

        action = np.array(self.policy(residuals.observe(trail, x0, memory)))
        if residuals.stops(action):
            return CLEAN, ()
        return residuals.node(trail, action), (x0, *memory)[:2]


def _rms(x: mx.array) -> mx.array:
    return mx.sqrt(mx.mean(x * x))
