"""SchedulerBase: what the classical schedulers add to the core: equally spaced timesteps, and dynamic thresholding."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace

from ..diffusion.limits import Limit, Thresholded
from ..diffusion.node import Node, node_at
from ..grids.base import Spacing
from ..grids.diffusers_spacings import Spaced
from .core import SchedulerCore


@dataclass(eq=False, repr=False)
class SchedulerBase(SchedulerCore):
    """A scheduler that spaces its timesteps itself, by the rules of diffusers.

    Args:
        thresholding: Clip the clean prediction of each image at a quantile of its magnitudes, and divide by that
            (dynamic thresholding; Saharia et al., 2022). Takes the place of `clip_sample`.
        dynamic_thresholding_ratio: That quantile, in [0, 1].
        sample_max_value: Upper bound of the threshold, >= 1 (at 1 it is plain clipping to +-1).
        timestep_spacing: `leading`, `linspace` or `trailing`, see `Spaced`.
        steps_offset: Added to the `leading` grid, >= 0.
        num_train_timesteps, ...: See `SchedulerCore`.

    Raises:
        ValueError: for a value out of range.
    """

    _: KW_ONLY
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    timestep_spacing: str = "leading"
    steps_offset: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._thresholded, self._spaced  # they refuse values that are out of range

    @property
    def spacing(self) -> Spacing:
        """See `SchedulerCore`: as configured."""
        return self._spaced

    @property
    def limit(self) -> Limit:
        """See `SchedulerCore`."""
        return self._thresholded if self.thresholding else super().limit

    @property
    def _spaced(self) -> Spaced:
        return Spaced(self.timestep_spacing, self.steps_offset)

    @property
    def _thresholded(self) -> Thresholded:
        return Thresholded(self.dynamic_thresholding_ratio, self.sample_max_value)

    def _first_node(self) -> Node:
        """Timestep 0, the least noise the model was trained with."""
        return node_at(self.schedule, 0)


@dataclass(eq=False, repr=False)
class LinspaceScheduler(SchedulerBase):
    """With the defaults of multistep solvers: no clipping, and `linspace` timesteps without t = 0."""

    _: KW_ONLY
    clip_sample: bool = False
    timestep_spacing: str = "linspace"

    @property
    def spacing(self) -> Spacing:
        """See `SchedulerBase`."""
        return replace(self._spaced, open_end=True)
