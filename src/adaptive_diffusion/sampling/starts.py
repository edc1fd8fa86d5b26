"""Where a run begins: its timesteps; pure noise, near the noise of another image, or an image with noise on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from ..diffusion.checks import check_number
from ..diffusion.schedule import NoiseSchedule
from ..errors import Unusable
from ..grids.base import Spacing, spaced
from ..io.counted import count
from ..schedulers.core import SchedulerCore


class Start(Protocol):
    """Makes the first states of a batch from its noise."""

    def __call__(self, noise: mx.array, /) -> mx.array:
        """(B, H, W, C) standard normal noise -> (B, H, W, C) what takes its place."""
        ...


@dataclass(frozen=True, eq=False)
class NearNoise:
    """Noise on the great circle from one noise to others: images that are variations of one.

    Args:
        base: (H, W, C) the noise of the image that is varied.
        amount: The part of the way to go, in [0, 1]; 0 repeats the image, 1 draws others.
    """

    base: mx.array
    amount: float

    def __call__(self, noise: mx.array) -> mx.array:
        """Spherical interpolation, which keeps noise standard normal (Shoemake, 1985); see `Start`."""
        axes = tuple(range(1, noise.ndim))
        lengths = mx.sqrt((noise**2).sum(axis=axes, keepdims=True)) * mx.sqrt((self.base**2).sum())
        cosine = mx.clip((noise * self.base).sum(axis=axes, keepdims=True) / lengths, -1, 1)
        angle = mx.arccos(cosine)
        sine = mx.sin(angle)
        mixed = (mx.sin((1 - self.amount) * angle) * self.base + mx.sin(self.amount * angle) * noise) / sine
        return mx.where(sine > 1e-3, mixed, noise)  # the noise of the image itself is left alone


@dataclass(frozen=True, eq=False)
class FromPicture:
    """An image with the noise of the run's first timestep (SDEdit; Meng et al., 2022).

    Args:
        clean: (H, W, C) the image as a state of the model.
        scheduler: With its timesteps set, see `last_timesteps`.
    """

    clean: mx.array
    scheduler: SchedulerCore

    def __call__(self, noise: mx.array) -> mx.array:
        """See `Start`."""
        clean = mx.broadcast_to(self.clean, noise.shape)
        return self.scheduler.add_noise(clean, noise, float(self.scheduler.timesteps[0]))


def set_timesteps(scheduler: SchedulerCore, grid: Spacing | None, schedule: NoiseSchedule, n: int) -> None:
    """Begin a run of `n` steps on a grid.

    Args:
        scheduler: Any scheduler; a grid replaces its own spacing.
        grid: Where to evaluate the model; None: the scheduler's own spacing.
        schedule: The noise schedule that the model was trained with.
        n: Number of steps, in [1, T].

    Raises:
        ValueError: for `n` out of range, or a grid of another number of timesteps.
    """
    if grid is None:
        scheduler.set_timesteps(n)
    else:
        scheduler.set_timesteps(timesteps=spaced(grid, schedule, n))


def last_timesteps(scheduler: SchedulerCore, strength: float) -> None:
    """Keep the last of a scheduler's timesteps, as many as `strength` says: a share in (0, 1], rounded down.

    Raises:
        ValueError: for another strength, or one that is less than a single step.
    """
    check_number("strength", strength, 0, 1, above=True)
    steps = len(scheduler)
    kept = math.floor(steps * strength + 1e-9)  # 0.29 of 100 steps is 28.999...
    if kept < 1:
        raise Unusable(
            f"strength={strength} is less than one of {count(steps, 'step')}; give at least "
            f"strength={math.ceil(1000 / steps) / 1000:g}, or at least num_steps={math.ceil(1 / strength - 1e-9)}"
        )

    if kept < steps:
        scheduler.set_timesteps(timesteps=scheduler.timesteps[-kept:])
