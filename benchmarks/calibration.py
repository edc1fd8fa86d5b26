"""`python -m benchmarks calibration`: the quick calibration against the shipped one and the classical solvers."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from adaptive_diffusion.calibration.quick import QuickCalibration
from adaptive_diffusion.diffusion.conditions import NO_LABEL, conditions_of
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from adaptive_diffusion.grids.base import Spacing
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule
from adaptive_diffusion.grids.spacings import KarrasGrid, LogSNRGrid, PowerGrid
from adaptive_diffusion.io.markdown import row_of, table
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.sampling.converged import converged_pictures, paired_rmse
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.core import SchedulerCore
from benchmarks.common import DOMAINS, classical_schedulers, images_by, scheduler_settings

GRIDS: dict[str, Spacing] = {
    "uniform": PowerGrid(1),
    "quadratic": PowerGrid(2),
    "log-SNR": LogSNRGrid(),
    "Karras": KarrasGrid(),
}


def main(argv: list[str]) -> None:
    """Print distances to the converged solution on noises that nothing was fitted on, and what each calibration cost.

    A factor is a mean RMSE relative to the best classical one: DPM-Solver++(2M) or UniPC on the uniform, quadratic,
    log-SNR or Karras grid, whichever is best in the row. The share says how much of the logarithm of the shipped
    calibration's factor the quick one keeps. Behind +- stands the standard error of the mean.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks calibration", description=__doc__)
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS))
    parser.add_argument("--label", default=NO_LABEL, help="a label of the domains, none, or share: labels by share")
    parser.add_argument("--steps", nargs="+", type=int, default=[4, 5, 6, 8, 10])
    parser.add_argument("--images", type=int, default=96, help="noises per row, at least 2")
    parser.add_argument("--batch-size", type=int, default=32, help="images per evaluation")
    parser.add_argument("--seed", type=int, default=31_000, help="of the noises")
    parser.add_argument("--quick-seed", type=int, default=20_000, help="of the noises of the quick calibration")
    options = parser.parse_args(argv)

    network = load_builtin_model()
    settings = scheduler_settings(network)
    cost = {n: QuickCalibration(steps=(n,)).evaluations() for n in options.steps}
    print(f"quick: {cost} network evaluations\n")

    header = ["domain", "steps", "best classical", "RMSE", "shipped", "quick", "share"]
    header += ["perceptual: classical", "shipped", "quick"]
    print("\n".join(table(header, [], "lrlrrrrrrr")), flush=True)

    for domain in options.domains:
        label = None if options.label == "share" else options.label
        model = GuidedModel.from_model(network, conditions_of(network, domain, label, domain), domain=domain)
        shipped = find_schedule(None, network.identity, domain, network.metadata["guidance_scale"])
        assert shipped is not None
        distance = Distance(model, options.images, options.seed, options.batch_size)

        for n in options.steps:
            classical = {name: distance(scheduler) for name, scheduler in classical_schedulers(settings, GRIDS, n)}
            name = min(classical, key=lambda name: classical[name][0].mean())
            best, best_perceptual = classical[name]

            recipe = QuickCalibration(steps=(n,), seed=options.quick_seed, batch_size=options.batch_size)
            (quick,) = recipe.calibrate(model)
            found = [distance(_adaptive(settings, n, schedule)) for schedule in (shipped, quick)]
            factors = [rmse.mean() / best.mean() for rmse, _ in found]
            share = np.log(factors[1]) / np.log(factors[0])

            cells = [domain, f"{n}", name, _mean(best), *(f"{factor:.2f}" for factor in factors), f"{share:.2f}"]
            print(row_of([*cells, *(_mean(p) for p in (best_perceptual, *(p for _, p in found)))]), flush=True)


class Distance:
    """Distances of a scheduler's images to the converged solutions of the same noises.

    Args:
        model: The model, with its guidance and its conditions.
        images: Noises.
        seed: Of the noises.
        batch_size: Images per evaluation.
    """

    def __init__(self, model: GuidedModel, images: int, seed: int, batch_size: int):
        self._model, self._batch_size = model.of_images(seed, images), batch_size
        self._x_T = model.noise(seed, images)
        self._solution = converged_pictures(self._model, self._x_T, batch_size=batch_size, tolerance=0.01).images
        self._encoder = load_builtin_encoder()

    def __call__(self, scheduler: SchedulerCore) -> tuple[np.ndarray, np.ndarray]:
        """(N,) RMSE and (N,) perceptual distances of a scheduler whose timesteps are set."""
        images = images_by(scheduler, self._model, self._x_T, self._batch_size)
        return paired_rmse(images, self._solution), self._encoder.perceptual_distances(images, self._solution)


def _adaptive(settings: dict[str, Any], n: int, schedule: CalibratedSchedule) -> SchedulerCore:
    return AdaptiveScheduler(num_inference_steps=n, calibration=schedule, **settings)


def _mean(values: np.ndarray) -> str:
    return f"{values.mean():.4f} +- {values.std(ddof=1) / np.sqrt(len(values)):.4f}"
