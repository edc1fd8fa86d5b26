"""`python -m benchmarks holds`: where weights of one label hold for others, those of no label for all of them."""

from __future__ import annotations

import argparse

import numpy as np

from adaptive_diffusion.calibration.calibrate import CLASSICAL
from adaptive_diffusion.calibration.fitting import Solution, errors
from adaptive_diffusion.calibration.quick import QuickCalibration
from adaptive_diffusion.calibration.reference import record
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule
from adaptive_diffusion.io.markdown import row_of, table
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.sampling.rollout import InBatches


def main(argv: list[str]) -> None:
    """Print the error of calibrated steps for labels that they were not calibrated for, as factors.

    The error is the RMSE to 32 steps of iPNDM with the label that draws, on noises that no calibration saw. A factor is
    relative to the best of DPM-Solver++(2M) on the quadratic, log-SNR and blended grid in the same cell; after the sign
    comes the standard error of the mean paired difference. Rows name the label that was calibrated: `shipped` and
    `none` are those of a domain without a label, `none` and the others by the quick recipe.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks holds", description=__doc__)
    parser.add_argument("--labels", nargs="+", default=["landscapes/sunrise", "landscapes/forest"])
    parser.add_argument("--steps", nargs="+", type=int, default=[5, 8])
    parser.add_argument("--noises", type=int, default=16, help="per cell")
    parser.add_argument("--seed", type=int, default=4242, help="of the noises")
    options = parser.parse_args(argv)

    network, steps = load_builtin_model(), tuple(options.steps)
    recipe = QuickCalibration(steps=steps)

    def model_of(domain: str, label: str | None) -> GuidedModel:
        return GuidedModel.from_model(network, network.condition(domain, label, domain), domain=domain)

    calibrated: dict[str, CalibratedSchedule] = {}
    for name in options.labels:
        domain, label = name.split("/")
        shipped = find_schedule(None, network.identity, domain, network.metadata["guidance_scale"])
        assert shipped is not None
        calibrated[f"{domain}, shipped"] = shipped
        for key, known in ((f"{domain}, none", None), (f"{domain}, {label}", label)):
            if key not in calibrated:
                *_, calibrated[key] = recipe.calibrate(model_of(domain, known))

    header = ["draws", "calibrated for", "steps", "best classical", "RMSE", "weights", "timesteps alone"]
    print("\n".join(table(header, [], "llrlrrr")), flush=True)
    for name in options.labels:
        domain, label = name.split("/")
        model = InBatches(model_of(domain, label))
        reference = record(model, model.model.noise(options.seed, options.noises), 32)
        for n in steps:
            candidates = {grid: Solution(lay(model.process, n)) for grid, lay in CLASSICAL.items()}
            classical = {grid: errors(model, reference, candidate) for grid, candidate in candidates.items()}
            best = min(classical, key=lambda grid: classical[grid].mean())
            own = {key: schedule for key, schedule in calibrated.items() if key.startswith(f"{domain}, ")}
            for key, schedule in own.items():
                found, cells = schedule.steps[n], []
                for rows in (found.corrections, None):
                    given = None if rows is None else np.array(rows)
                    error = errors(model, reference, Solution(np.array(found.timesteps), given))
                    change = (error - classical[best]) / classical[best].mean()
                    spread = change.std(ddof=1) / np.sqrt(len(change))
                    cells.append(f"{1 + change.mean():.2f} +- {spread:.2f}")
                row = [f"{domain}, {label}", key, f"{n}", f"2M {best}", f"{classical[best].mean():.4f}", *cells]
                print(row_of(row), flush=True)
