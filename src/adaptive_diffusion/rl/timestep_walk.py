"""A batch on its way from noise to pictures, one model evaluation a step: what is seen of it, and where it goes next.

`TimestepEnv` trains policies on it and `LearnedScheduler` draws with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from ..baseline.multistep import multistep_weights
from ..baseline.noise_schedule import NoiseSchedule

RESIDUAL = 2.0  # largest change of a logit
STOP = 0.5  # of the second action, from which on the walk ends
_LEAST = 1e-6  # of the fraction of the way, and one minus it: prior grids may end at t = 0


@dataclass(frozen=True, eq=False)
class Route:
    """What does not change while a batch is drawn.

    Attributes:
        schedule: The noise schedule that the model was trained with.
        prior: (N,) timesteps from T - 1 on: where actions of 0 lead.
        one_hot: (D,) 1 at the domain that is drawn.
        stopping: Whether actions have a second number, which ends the walk.
    """

    schedule: NoiseSchedule
    prior: np.ndarray
    one_hot: np.ndarray
    stopping: bool = False
    first: float = field(init=False)  # log-SNR at T - 1, and at 0
    last: float = field(init=False)
    logits: np.ndarray = field(init=False)  # (N - 1,) of the part of the remaining way that the prior's steps go

    def __post_init__(self) -> None:
        first, last = map(float, self.schedule.log_snr([self.schedule.num_train_timesteps - 1, 0]))
        log_snr = self.schedule.log_snr(self.prior)
        fraction = np.clip(np.diff(log_snr) / (last - log_snr[:-1]), _LEAST, 1 - _LEAST)
        for name, value in {"first": first, "last": last, "logits": np.log(fraction / (1 - fraction))}.items():
            object.__setattr__(self, name, value)

    @property
    def budget(self) -> int:
        """N, the evaluations of a walk that is not stopped."""
        return len(self.prior)

    @property
    def width(self) -> int:
        """Numbers of an observation."""
        return 7 + len(self.one_hot)


class TimestepWalk:
    """Steps of DPM-Solver++(2M) along a route. By turns `see` a clean prediction, `observe`, and `go` on.

    Args:
        route: Where it begins, and what its actions are added to.

    Attributes:
        trail: log-SNRs so far, of which the last is where the batch stands.
        x0: (B, H, W, C) the latest clean prediction.
    """

    def __init__(self, route: Route):
        self.route = route
        self.trail = [route.first]
        self.x0: mx.array | None = None
        self._before: mx.array | None = None
        self._disagreement: mx.array | None = None

    @property
    def timestep(self) -> float:
        """Where the batch stands, in [0, T - 1]."""
        return float(self.route.schedule.timestep(self.trail[-1]))

    def see(self, x0: mx.array) -> None:
        """Take in the clean prediction, (B, H, W, C), where the batch stands."""
        self._before, self.x0 = self.x0, x0

    def observe(self) -> np.ndarray:
        """(7 + D,) float32, see `TimestepEnv`."""
        route, trail, used, x0 = self.route, self.trail, len(self.trail), self.x0
        assert x0 is not None
        change = x0 if self._before is None else x0 - self._before
        disagreement = mx.array(0.0) if self._disagreement is None else self._disagreement
        # one array, so that the host waits once
        moved, differ, spread = map(float, np.array(mx.stack([_rms(change), _rms(disagreement), mx.std(x0)])))
        seen = [
            used / route.budget,
            (trail[-1] - route.first) / (route.last - route.first),
            math.log10(moved + 1e-4) / 4 + 1,
            math.log10(differ + 1e-4) / 4 + 1,
            (trail[-1] - trail[-2]) / 10 if used > 1 else 0.0,
            spread,
            (route.budget - used) / 20,
        ]
        return np.clip(np.append(seen, route.one_hot), -10, 10).astype(np.float32)

    def stops(self, action: np.ndarray) -> bool:
        """Whether an action ends the walk, with the clean prediction there is."""
        return self.route.stopping and bool(action[1] > STOP)

    def go(self, x_t: mx.array, action: np.ndarray) -> mx.array:
        """One step, of first order at the beginning, to where the action leads.

        Args:
            x_t: (B, H, W, C) where the batch stands.
            action: Its first number is added to the prior's logit.

        Returns:
            (B, H, W, C) the noisy pictures there.
        """
        assert self.x0 is not None
        now = self.trail[-1]
        logit = self.route.logits[len(self.trail) - 1] + float(np.clip(action[0], -RESIDUAL, RESIDUAL))
        then = now + (self.route.last - now) / (1 + math.exp(-logit))
        _, weights = multistep_weights([*self.trail[-2:], then])
        (alpha, sigma), (_, sigma_now) = self._level(then), self._level(now)
        clean = weights[0] * self.x0
        if self._before is not None and len(weights) > 1:
            clean = clean + weights[1] * self._before
            self._disagreement = weights[1] * (self._before - self.x0)
        self.trail.append(then)
        return (sigma / sigma_now) * x_t + alpha * clean

    def level(self) -> tuple[float, float]:
        """alpha and sigma where the batch stands."""
        return self._level(self.trail[-1])

    def select(self, keep: mx.array) -> None:
        """Go on with some pictures only: their positions in the batch."""
        for name in ("x0", "_before", "_disagreement"):
            if (value := getattr(self, name)) is not None:
                setattr(self, name, value[keep])

    def _level(self, log_snr: float) -> tuple[float, float]:
        schedule = self.route.schedule
        t = schedule.timestep(log_snr)
        return float(schedule.alpha(t)), float(schedule.sigma(t))


def _rms(x: mx.array) -> mx.array:
    return mx.sqrt(mx.mean(x * x))
