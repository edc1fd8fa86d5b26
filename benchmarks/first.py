"""`python -m benchmarks first`: calibrated steps whose first prediction is stored, at equal evaluations."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from adaptive_diffusion.calibration.fitting import Evaluated, Solution, drawn, fit_corrections
from adaptive_diffusion.calibration.reference import ReferenceTrajectories, record
from adaptive_diffusion.diffusion.conditions import NO_LABEL, conditions_of
from adaptive_diffusion.diffusion.facts import ModelFacts
from adaptive_diffusion.diffusion.first_prediction import (
    KnownFirst,
    first_node,
    first_prediction,
)
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.grids.calibrated import CalibratedGrid, find_schedule
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule
from adaptive_diffusion.io.markdown import row_of, table
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.sampling.converged import converged_pictures, paired_rmse
from adaptive_diffusion.sampling.rollout import InBatches
from benchmarks.common import DOMAINS

HEADER = (
    "domain",
    "evaluations",
    "evaluated",
    "stored, shipped weights",
    "stored, refitted from few",
    "stored, refitted from many",
)
OWN_SEED = 71_000  # of the noises that weights are refitted from


def main(argv: list[str]) -> None:
    """Print the RMSE to the converged solution, and in brackets the paired difference to that of evaluated steps.

    "evaluated" are the shipped steps, as many as there are evaluations. The other columns take one step more, whose
    first prediction is stored: with the shipped weights, or with weights fitted on the same timesteps to the reference
    trajectories of few or many noises.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks first", description=__doc__)
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS))
    parser.add_argument("--label", default=NO_LABEL, help="a label of the domains, or none")
    parser.add_argument("--evaluations", nargs="+", type=int, default=[4, 5, 6, 7, 8, 9, 10])
    parser.add_argument("--noises", type=int, default=64, help="per cell")
    parser.add_argument("--seed", type=int, default=86_000, help="of the noises")
    parser.add_argument("--measured", type=int, default=64, help="noises that the first prediction is measured from")
    parser.add_argument("--few", nargs=2, type=int, default=[6, 24], help="noises and nodes of few trajectories")
    parser.add_argument("--many", nargs=2, type=int, default=[32, 64], help="noises and nodes of many trajectories")
    options = parser.parse_args(argv)

    model = load_builtin_model()
    print("\n".join(table(list(HEADER), [], "lrrrrr")), flush=True)

    for domain in options.domains:
        guided = GuidedModel.from_model(model, conditions_of(model, domain, options.label, domain))
        calibration = find_schedule(None, model.identity, domain, ModelFacts.of(model).guidance(None))
        assert calibration is not None
        first = first_prediction(guided, model.state_shape, options.measured)

        batched = InBatches(guided)
        own = [record(batched, guided.noise(OWN_SEED, noises), nodes) for noises, nodes in (options.few, options.many)]
        cell = Cell(calibration, batched, KnownFirst(batched, first), guided.noise(options.seed, options.noises))
        for n in options.evaluations:
            evaluated = cell.shipped(n, cell.evaluated)
            stored = [cell.shipped(n + 1, cell.stored), *(cell.refitted(n + 1, reference) for reference in own)]
            cells = ["-" if errors is None else compared(errors, evaluated) for errors in stored]
            mean = "-" if evaluated is None else f"{evaluated.mean():.4f}"
            print(row_of([domain, str(n), mean, *cells]), flush=True)


@dataclass
class Cell:
    """A domain of the model, its calibrated steps, and noises to draw from.

    Args:
        calibration: The steps.
        evaluated: The model.
        stored: The same model, with its first prediction known.
        noise: (N, H, W, C) standard normal noises.
    """

    calibration: CalibratedSchedule
    evaluated: InBatches
    stored: KnownFirst
    noise: mx.array

    def __post_init__(self) -> None:
        self.solution = converged_pictures(self.evaluated.model, self.noise).images
        self._states = np.array(self.noise, np.float64) / first_node(self.evaluated.process).alpha

    def drawn(self, n: int, model: Evaluated) -> np.ndarray | None:
        """(N, H, W, C) images of the calibrated steps; None where none were calibrated."""
        known = self.calibration.used(n)
        if known is None or known.corrections is None:
            return None
        return self._images(model, Solution(np.array(known.timesteps), np.array(known.corrections)))

    def shipped(self, n: int, model: Evaluated) -> np.ndarray | None:
        """(N,) errors of the calibrated steps; None where none were calibrated."""
        images = self.drawn(n, model)
        return None if images is None else paired_rmse(images, self.solution)

    def refitted(self, n: int, reference: ReferenceTrajectories) -> np.ndarray:
        """(N,) errors of n steps with weights that were fitted with the first prediction known."""
        timesteps = CalibratedGrid(self.calibration)(self.evaluated.process, n)
        fitted = Solution(timesteps, fit_corrections(self.stored, reference, timesteps))
        return paired_rmse(self._images(self.stored, fitted), self.solution)

    def _images(self, model: Evaluated, solution: Solution) -> np.ndarray:
        return np.clip(drawn(model, self._states, solution), -1, 1)


def compared(errors: np.ndarray, other: np.ndarray | None) -> str:
    """A mean error, and its paired difference to another with its standard error, in percent of the other."""
    if other is None:
        return f"{errors.mean():.4f}"
    difference = errors - other
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    percent = 100 / other.mean()
    return f"{errors.mean():.4f} ({percent * difference.mean():+.0f} ± {percent * error:.0f} %)"
