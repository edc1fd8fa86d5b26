"""The contract of recipes: how a model is calibrated, for which numbers of steps, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

from ..diffusion.checks import check_count, check_distinct, check_seed
from ..diffusion.guided_model import GuidedModel
from ..grids.calibrated_schedule import CalibratedSchedule


class CalibrationRecipe(Protocol):
    """How a model is calibrated."""

    @property
    def steps(self) -> Sequence[int]:
        """The numbers of steps."""
        ...

    def evaluations(self, model: GuidedModel | None = None) -> int:
        """Network evaluations of a model's calibration, each image counting; at most, where that is not known.

        Args:
            model: The model in its domain; None: the one that takes most.
        """
        ...

    def only(self, steps: Sequence[int]) -> Self:
        """The same for some of its numbers of steps."""
        ...

    def decides(self, n: int) -> Mapping[str, Any]:
        """All settings that decide how n steps are calibrated."""
        ...

    def calibrate(
        self, model: GuidedModel, progress: Callable[[int], None] | None = None
    ) -> Iterator[CalibratedSchedule]:
        """Yield the schedule so far, after every number of steps, in any order.

        Args:
            model: What to calibrate.
            progress: Called with the number of images after every evaluation of a batch.
        """
        ...


def check_recipe(steps: Sequence[int], most: int, held_out: int, batch_size: int, seed: int) -> None:
    """Refuse what no recipe can calibrate with: steps that are none, twice the same or not in [2, most], and so on."""
    if not steps:
        raise ValueError("steps must name at least one number of steps")
    for n in steps:
        check_count("steps", n, 2, most)
    check_distinct("steps", steps)
    check_count("held_out", held_out, 2)
    check_count("batch_size", batch_size, 1)
    check_seed("seed", seed)
