"""Rules that space timesteps, see `Spacing`. The step after the last one leads to the clean image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..diffusion.checks import check_count, check_number
from ..diffusion.schedule import NoiseSchedule
from .base import custom_timesteps

_TABLE = 16_384  # points of a tabulated grid


@dataclass(frozen=True)
class PowerGrid:
    """t_i = (T - 1) (1 - i / N)^power: the larger the power, the more steps at low noise.

    Args:
        power: In (0, 10]; 1 is the uniform grid, 2 the quadratic one of DDIM (Song et al., 2021, D.2).
    """

    power: float

    def __post_init__(self) -> None:
        check_number("power", self.power, 0, 10, above=True)

    def __call__(self, schedule: NoiseSchedule, n: int, /) -> np.ndarray:
        """See `Spacing`."""
        _check_steps(schedule, n)
        return (schedule.num_train_timesteps - 1) * (1 - np.arange(n) / n) ** self.power


@dataclass(frozen=True)
class LogSNRGrid:
    """N timesteps equally spaced in log(alpha / sigma), from T - 1 to 0 (Lu et al., 2022)."""

    def __call__(self, schedule: NoiseSchedule, n: int, /) -> np.ndarray:
        """See `Spacing`."""
        _check_steps(schedule, n)
        first, last = schedule.log_snr([schedule.num_train_timesteps - 1, 0])
        return schedule.timestep(np.linspace(first, last, n))


@dataclass(frozen=True)
class KarrasGrid:
    """N timesteps equally spaced in (sigma / alpha)^(1 / rho), from T - 1 to 0 (Karras et al., 2022, eq. 5).

    Args:
        rho: In [1, 100]; the larger, the more steps at low noise; towards infinity it is `LogSNRGrid`.
    """

    rho: float = 7.0

    def __post_init__(self) -> None:
        check_number("rho", self.rho, 1, 100)

    def __call__(self, schedule: NoiseSchedule, n: int, /) -> np.ndarray:
        """See `Spacing`."""
        _check_steps(schedule, n)
        first, last = np.exp(-schedule.log_snr([schedule.num_train_timesteps - 1, 0])) ** (1 / self.rho)
        return schedule.timestep(-self.rho * np.log(np.linspace(first, last, n)))


@dataclass(frozen=True)
class BlendedGrid:
    """N timesteps equally spaced in a mean of the quadratic and the log-SNR grid, from T - 1 to short of 0.

    The one measures progress by 1 - sqrt(t / (T - 1)), which leaves few steps for the lowest noise, the other by
    log(alpha / sigma), which leaves few for the highest; both run from 0 to 1.

    Args:
        log_snr_weight: Weight of the log-SNR in the mean, in [0, 1]; 0 is the quadratic grid.
    """

    log_snr_weight: float = 0.5

    def __post_init__(self) -> None:
        check_number("log_snr_weight", self.log_snr_weight, 0, 1)

    def __call__(self, schedule: NoiseSchedule, n: int, /) -> np.ndarray:
        """See `Spacing`."""
        _check_steps(schedule, n)
        quadratic = np.linspace(0, 1, _TABLE)
        t = (schedule.num_train_timesteps - 1) * (1 - quadratic) ** 2
        log_snr = schedule.log_snr(t)
        log_snr = (log_snr - log_snr[0]) / (log_snr[-1] - log_snr[0])
        progress = quadratic + self.log_snr_weight * (log_snr - quadratic)
        return np.interp(np.arange(n) / n, progress, t)


@dataclass(frozen=True)
class TableGrid:
    """A published table of timesteps, e.g. Align Your Steps (Sabour et al., 2024).

    For another n than the table's the log-SNR of its timesteps, linear in between, is read at n equally spaced places
    from the first to the last, as the paper does with log sigma. The noise process is that of the model that draws.

    Args:
        timesteps: At least two, strictly decreasing, in [0, T - 1].
        num_train_timesteps: T of the model that the table was made for.

    Raises:
        ValueError: for a table that is none.
    """

    timesteps: Sequence[float]
    num_train_timesteps: int = 1000

    def __post_init__(self) -> None:
        T = check_count("num_train_timesteps", self.num_train_timesteps, 2)
        table = custom_timesteps(self.timesteps, T)
        if len(table) < 2:
            raise ValueError(f"a table needs at least two timesteps, got {self.timesteps}")
        object.__setattr__(self, "timesteps", tuple(table.tolist()))

    def __call__(self, schedule: NoiseSchedule, n: int, /) -> np.ndarray:
        """See `Spacing`; raises ValueError also for a schedule of another length than the table's."""
        _check_steps(schedule, n)
        if schedule.num_train_timesteps != self.num_train_timesteps:
            raise ValueError(
                f"the table is for models with {self.num_train_timesteps} training timesteps and the noise "
                f"schedule has {schedule.num_train_timesteps}: choose another grid"
            )

        table = np.array(self.timesteps)
        if n == len(table):
            return table

        places = np.linspace(0, len(table) - 1, n)
        inner = np.interp(places, np.arange(len(table)), schedule.log_snr(table))
        grid = schedule.timestep(inner)
        grid[0], grid[-1] = table[0], table[-1] if n > 1 else table[0]  # without rounding
        return grid


def own_spacing() -> None:
    """No grid: the scheduler spaces its timesteps itself."""


def _check_steps(schedule: NoiseSchedule, n: int) -> None:
    check_count("num_inference_steps", n, 1, schedule.num_train_timesteps)
