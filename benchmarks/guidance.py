"""`python -m benchmarks guidance`: the error of calibrated steps at other guidance scales."""

from __future__ import annotations

import argparse

from adaptive_diffusion.diffusion.conditions import conditions_of
from adaptive_diffusion.diffusion.guidance import Interval, name_of
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.grids.base import Spacing
from adaptive_diffusion.grids.calibrated import CalibratedGrid, find_schedule
from adaptive_diffusion.grids.spacings import BlendedGrid, LogSNRGrid, PowerGrid
from adaptive_diffusion.io.markdown import row_of, table
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DPMSolverScheduler
from benchmarks.calibration import Distance
from benchmarks.common import classical_schedulers, interval_of, scheduler_settings

GRIDS: dict[str, Spacing] = {"quadratic": PowerGrid(2), "log-SNR": LogSNRGrid(), "blended": BlendedGrid()}
BATCH = 16  # noises per evaluation


def main(argv: list[str]) -> None:
    """Print the error with the calibrated weights, and with the calibrated timesteps alone, as factors.

    The error is the RMSE to the converged solution at the same guidance. A factor is relative to the best of
    DPM-Solver++(2M) and UniPC with the quadratic, log-SNR and blended grid in the same cell.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks guidance", description=__doc__)
    parser.add_argument("--domains", nargs="+", default=["landscapes", "portraits", "abstract", "general"])
    parser.add_argument("--guidance", nargs="+", type=float, default=[1, 1.5, 2, 3, 5, 7.5])
    parser.add_argument("--interval", help="of log(alpha / sigma), low:high, as --interval=-2.5:0.35; default: all")
    parser.add_argument("--steps", nargs="+", type=int, default=[5, 8, 10])
    parser.add_argument("--noises", type=int, default=16, help="per cell")
    parser.add_argument("--seed", type=int, default=4242, help="of the noises")
    parser.add_argument("--calibration", help="file of calibrated schedules; default: the shipped one")
    options = parser.parse_args(argv)

    model = load_builtin_model()
    settings = scheduler_settings(model)

    header = ["domain, guidance", "steps", "best classical", "RMSE", "weights", "timesteps alone"]
    print("\n".join(table(header, [], "lrlrrr")), flush=True)

    for domain in options.domains:
        conditions = conditions_of(model, domain, None, domain)
        calibration = find_schedule(options.calibration, model.identity, domain, model.metadata["guidance_scale"])
        assert calibration is not None

        for weight in options.guidance:
            guidance = weight if options.interval is None else Interval(weight, *interval_of(options.interval))
            guided = GuidedModel.from_model(model, conditions, guidance)
            distance = Distance(guided, options.noises, options.seed, BATCH)
            for n in options.steps:
                schedulers = classical_schedulers(settings, GRIDS, n)
                classical = {name: distance(scheduler)[0].mean() for name, scheduler in schedulers}
                best = min(classical, key=lambda name: classical[name])
                weighted = AdaptiveScheduler(num_inference_steps=n, calibration=calibration, **settings)
                alone = DPMSolverScheduler(clip_sample=True, **settings)
                alone.set_timesteps(timesteps=CalibratedGrid(calibration)(alone.schedule, n))

                factors = [f"{distance(scheduler)[0].mean() / classical[best]:.2f}" for scheduler in (weighted, alone)]
                cells = [f"{domain} {name_of(guidance)}", f"{n}", best, f"{classical[best]:.4f}", *factors]
                print(row_of(cells), flush=True)
