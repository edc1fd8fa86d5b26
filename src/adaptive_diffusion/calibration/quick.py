"""The quick recipe: a model is calibrated from at most 300 network evaluations for one number of steps up to 11.

Most of its error comes from the few noises that weights are fitted on, so as many as these evaluations allow are taken,
and the weights are shrunk more than those of many noises are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_count, check_number
from ..diffusion.guided_model import GuidedModel
from ..diffusion.schedule import NoiseSchedule
from ..grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps
from ..grids.spacings import BlendedGrid
from ..sampling.rollout import InBatches
from .calibrate import CLASSICAL, conditioned, schedule_of
from .choosing import choose
from .even import EvenGrid
from .fitting import Solution, errors, fit_corrections
from .recipe import check_recipe
from .reference import FEWEST_NODES, record

MOST_STEPS = 500  # half of what a reference trajectory may take
ALLOWED = 300  # network evaluations for one number of steps; twice as many for several
FEWEST = 5  # noises, where these evaluations allow less
EVEN = 5  # steps up to which the grid is that of equal errors; with more its share falls; see docs/notes/tried.md


@dataclass(frozen=True)
class QuickCalibration:
    """How a model is calibrated quickly.

    Args:
        steps: Numbers of steps to calibrate, each >= 2.
        noises: Images that the grid is laid and the weights are fitted on, >= 2; None: as many as 300 network
            evaluations allow for one number of steps, or 600 for several, but at least 5.
        held_out: Other images, by which the result is compared with the classical grids, >= 2.
        nodes: Steps of the reference trajectories, >= 8; twice the largest number of `steps` where that is more.
        ridge: By how much weights are shrunk, see `fit_corrections`, >= 0.
        batch_size: Images per evaluation, >= 1.
        seed: Of the noises, >= 0.

    Raises:
        ValueError: for a value out of range.
    """

    steps: Sequence[int] = (5, 8, 10)
    noises: int | None = None
    held_out: int = 2
    nodes: int = 20
    ridge: float = 3e-3
    batch_size: int = 16
    seed: int = 20_000

    def __post_init__(self) -> None:
        check_recipe(self.steps, MOST_STEPS, self.held_out, self.batch_size, self.seed)
        if self.noises is not None:
            check_count("noises", self.noises, 2)
        check_count("nodes", self.nodes, FEWEST_NODES, 2 * MOST_STEPS)
        check_number("ridge", self.ridge, 0)

    @property
    def reference_nodes(self) -> int:
        """Steps of the reference trajectories."""
        return max(self.nodes, 2 * max(self.steps))

    @property
    def fitted_on(self) -> int:
        """The number of noises that weights are fitted on."""
        if self.noises is not None:
            return self.noises
        allowed = ALLOWED * min(2, len(self.steps))
        return max(FEWEST, (allowed - self._judging) // (self.reference_nodes + sum(self.steps)))

    @property
    def _judging(self) -> int:
        """Evaluations of the held-out images."""
        return self.held_out * (self.reference_nodes + sum(self.steps) * (1 + len(CLASSICAL)))

    def evaluations(self, model: GuidedModel | None = None) -> int:
        """Network evaluations of the calibration, each image counting; the same for every model."""
        return self._judging + self.fitted_on * (self.reference_nodes + sum(self.steps))

    def only(self, steps: Sequence[int]) -> Self:
        """See `CalibrationRecipe`; the reference trajectories stay as fine, and as many."""
        return replace(self, steps=steps, noises=self.fitted_on, nodes=self.reference_nodes)

    def decides(self, n: int) -> dict[str, Any]:
        """See `CalibrationRecipe`."""
        names = ("fitted_on", "held_out", "reference_nodes", "ridge", "seed")
        return {"recipe": "quick", **{name: getattr(self, name) for name in names}}

    def calibrate(
        self, model: GuidedModel, progress: Callable[[int], None] | None = None
    ) -> Iterator[CalibratedSchedule]:
        """Calibrate a model with few evaluations.

        The grid is a mean, in log-SNR, of the blended one and of one of equal errors (see `even`), which counts the
        more the fewer the steps are. Its weights are fitted (see `fitting`). On the held-out noises it has to beat
        DPM-Solver++(2M) on the classical grids; otherwise the best of these is kept.

        Args:
            model: What to calibrate. Of several conditions, image i is drawn with condition i modulo their number; of a
                mixture, with its own.
            progress: Called with the number of images after every network evaluation of a batch.

        Yields:
            The schedule so far, after every number of steps.

        Raises:
            Unusable: for a model of fewer training timesteps than the reference trajectories have nodes.
            FloatingPointError: if the model predicts what is not finite.
        """
        process, noises, images = model.process, self.fitted_on, self.fitted_on + self.held_out
        model = conditioned(model, self.seed, images)
        batched = InBatches(model, self.batch_size, progress)
        trajectories = record(batched, model.noise(self.seed, images), self.reference_nodes)
        if not np.isfinite(trajectories.predictions).all():
            raise FloatingPointError("the predictions of the model are not finite, so it cannot be calibrated")

        fit_on, held_out = trajectories[:noises], trajectories[noises:]
        held_out_model = InBatches(model.with_condition(_rows(model.condition, noises)), self.batch_size, progress)

        even = EvenGrid.of(fit_on)
        found: dict[int, CalibratedSteps] = {}
        for n in sorted(self.steps):
            timesteps = mean_grid(process, BlendedGrid()(process, n), even(process, n), min(1.0, EVEN / n))
            candidates = {name: Solution(grid(process, n)) for name, grid in CLASSICAL.items()}
            candidates["quick"] = Solution(timesteps, fit_corrections(batched, fit_on, timesteps, ridge=self.ridge))

            # a standard error of two images means nothing
            found[n] = choose(
                candidates,
                lambda candidate: errors(held_out_model, held_out, candidate),
                classical=list(CLASSICAL),
                margin=0,
            )
            yield schedule_of(model, self.reference_nodes, noises, self.held_out, found)


def mean_grid(process: NoiseSchedule, grid: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """(n,) timesteps from T - 1 on whose log-SNR is the mean of that of two grids, the other one with a share."""
    timesteps = process.timestep((1 - share) * process.log_snr(grid) + share * process.log_snr(other))
    return np.append(grid[0], timesteps[1:])


def _rows(conditions: mx.array | None, first: int) -> mx.array | None:
    """The conditions of the images from one on; a single one is that of all."""
    return conditions if conditions is None or len(conditions) == 1 else conditions[first:]
