"""Rewards: what was measured of images drawn, against a baseline from the same noises.

Quality is a log-ratio of errors to the model's converged solution, so that 0 is as good as the baseline and 0.69 means
half its error; or, for the metrics `real` and `real_text`, what was won in distance to real images, see `RealNoises`.
Speed is the share of the baseline's cost that was saved. Both are about 1 where it matters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from ..diffusion.checks import check_choice, check_number
from .measurement import Measurement as Measurement
from .noises import METRICS as TO_THE_SOLUTION
from .real_noises import METRICS as TO_REAL_IMAGES

METRICS = (*TO_THE_SOLUTION, *TO_REAL_IMAGES)
UNITS = ("evaluations", "passes", "seconds")


class Reward(Protocol):
    """Turns a measurement into one number per image; an episode's reward is their mean.

    Attributes:
        weight: Of the quality, in [0, 1]; policies are told.
        metric: The distance that errors are measured by: `rmse` or `perceptual`, to the converged solution; `real`, to
            the domain's real images; or `real_text`, which adds the agreement of image and text.
        unit: What costs, `evaluations`, `passes` through the network, or `seconds`. For the sake of seconds,
            environments that play side by side draw one after another.
    """

    @property
    def weight(self) -> float: ...

    @property
    def metric(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def __call__(self, measured: Measurement, /) -> np.ndarray:
        """(B,) rewards."""
        ...


def compares_with_real_images(reward: Reward) -> bool:
    """Whether a reward's errors are distances to real images. Such a reward needs no converged solution."""
    return reward.metric in TO_REAL_IMAGES


def is_timed(reward: Reward) -> bool:
    """Whether seconds count in a reward."""
    return reward.unit == "seconds"


@dataclass(frozen=True)
class QualityReward:
    """Quality, whatever it costs.

    Args:
        metric: `rmse`, `perceptual`, `real` or `real_text`, see `Reward`.
    """

    metric: str = "rmse"
    weight: ClassVar[float] = 1.0
    unit: ClassVar[str] = UNITS[0]  # what images cost does not enter the reward

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, METRICS)

    def __call__(self, measured: Measurement, /) -> np.ndarray:
        """See `Reward`."""
        return measured.quality


@dataclass(frozen=True)
class SpeedReward:
    """1 - cost / baseline's cost, whatever the images look like: fewest steps are best.

    Args:
        unit: `evaluations`, `passes`, or `seconds`, which are measured and hence never quite the same twice.
        metric: The distance that quality is reported in beside it.
    """

    unit: str = "evaluations"
    metric: str = "rmse"
    weight: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        check_choice("unit", self.unit, UNITS)
        check_choice("metric", self.metric, METRICS)

    def __call__(self, measured: Measurement, /) -> np.ndarray:
        """See `Reward`."""
        return np.full(len(measured.errors), measured.speed(self.unit))


@dataclass(frozen=True)
class HybridReward:
    """weight * quality + (1 - weight) * speed.

    Where the error falls as N^-p with the number of steps N, and the baseline takes N0, the best number of steps is
    N0 p weight / (1 - weight): for p = 2, as of second-order solvers in RMSE, weight 1/3 asks for as many steps as the
    baseline's and 1/2 for twice as many. A smaller error at equal steps pays at any weight above 0.

    Args:
        weight: Of the quality, in [0, 1].
        metric: See `Reward`. (Perceptual distances are squares: their p is about twice as large.)
        unit: `evaluations`, `passes` or `seconds`.

    Raises:
        ValueError: for a weight outside [0, 1], or an unknown metric or unit.
    """

    weight: float = 1 / 3
    metric: str = "rmse"
    unit: str = "evaluations"

    def __post_init__(self) -> None:
        check_number("weight", self.weight, 0, 1)
        if isinstance(self.weight, np.generic):  # agents are compared by how their rewards are written
            object.__setattr__(self, "weight", self.weight.item())
        check_choice("metric", self.metric, METRICS)
        check_choice("unit", self.unit, UNITS)

    def __call__(self, measured: Measurement, /) -> np.ndarray:
        """See `Reward`."""
        return np.asarray(self.weight * measured.quality + (1 - self.weight) * measured.speed(self.unit))


@dataclass(frozen=True, repr=False, eq=False)
class CustomReward:
    """A reward of a user's own.

    Args:
        function: Turns a `Measurement` of B images into (B,) rewards, or into one for all.
        weight: See `Reward`.
        metric: Likewise.
        unit: Likewise.

    Raises:
        ValueError: for a weight outside [0, 1], or an unknown metric or unit.
    """

    function: Callable[[Measurement], Any]
    weight: float = 1.0
    metric: str = "rmse"
    unit: str = "evaluations"

    def __post_init__(self) -> None:
        check_number("the reward's weight", self.weight, 0, 1)
        check_choice("the reward's metric", self.metric, METRICS)
        check_choice("the reward's unit", self.unit, UNITS)

    def __call__(self, measured: Measurement, /) -> np.ndarray:
        """See `Reward`.

        Raises:
            ValueError: unless the function gives one number, or one for each image.
        """
        count, rewards = len(measured.errors), self.function(measured)
        numbers = np.asarray(rewards)
        if numbers.dtype.kind not in "iuf" or numbers.shape not in ((), (count,)):
            raise ValueError(f"{self} must give one number, or one for each of {count} images, got {rewards!r:.100}")
        return np.broadcast_to(numbers.astype(np.float64), (count,))

    def __repr__(self) -> str:
        """The same in every process, since agents are compared by the reward that they were trained for."""
        own = getattr(self.function, "__self__", self.function)  # of a method, the object
        kind: Any = type(own)
        if hasattr(own, "__qualname__"):
            return str(own.__qualname__)
        if kind.__repr__ is not object.__repr__:
            return repr(own)
        return f"{kind.__qualname__}({', '.join(f'{name}={value!r}' for name, value in vars(own).items())})"


GivenReward = Reward | Callable[[Measurement], Any]


def reward_of(given: Any) -> Reward:
    """The reward that a user gave.

    Args:
        given: One of the rewards above; a function that turns a `Measurement` into one number, or into one for each
            image; or an object with such a function as its `__call__` or `compute`, which may have `weight`, `metric`
            and `unit`, see `Reward`: without them 1, `rmse` and `evaluations`.

    Raises:
        ValueError: for anything else.
    """
    if type(given) in (QualityReward, SpeedReward, HybridReward, CustomReward):
        own: Reward = given
        return own

    function = given if callable(given) else getattr(given, "compute", None)
    if isinstance(given, type) or not callable(function):
        what = f"the class {given.__name__}; call it" if isinstance(given, type) else repr(given)
        raise ValueError(
            "reward must be a HybridReward(), QualityReward() or SpeedReward(), or a function of a Measurement, got "
            f"{what}"
        )

    settings = {name: getattr(given, name) for name in ("weight", "metric", "unit") if hasattr(given, name)}
    return CustomReward(function, **settings)
