"""`python -m benchmarks few_steps`: images in few steps beside the converged solutions of the same noises."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from adaptive_diffusion.diffusion.conditions import conditions_of
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.grids.spacings import PowerGrid
from adaptive_diffusion.io.figures import grid, labelled, save_image
from adaptive_diffusion.io.pixels import to_uint8
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.sampling.converged import converged_pictures, paired_rmse
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DDIMScheduler, DPMSolverScheduler
from adaptive_diffusion.schedulers.core import SchedulerCore
from benchmarks.common import DOMAINS, images_by, scheduler_settings

NAMES = {"ddim": "DDIM, uniform", "dpm_solver": "DPM++, quadratic", "adaptive": "adaptive"}


def main(argv: list[str]) -> None:
    """Draw each domain in rows: DDIM, DPM-Solver++(2M), adaptive, adaptive with twice the steps, converged."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks few_steps", description=__doc__)
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS))
    parser.add_argument("--label", help="a label of the domains, or none; default: by share")
    parser.add_argument("--guidance", type=float, help="weight of classifier-free guidance; default: the model's own")
    parser.add_argument("--steps", type=int, default=5, help="steps of the first three rows of a domain")
    parser.add_argument("--images", type=int, default=10, help="noises per domain")
    parser.add_argument("--seed", type=int, default=77, help="of the noises")
    parser.add_argument("--output", type=Path, default=Path("outputs/few_steps.png"), help="the image to write")
    options = parser.parse_args(argv)

    model, n = load_builtin_model(), options.steps
    guidance = model.metadata["guidance_scale"] if options.guidance is None else options.guidance
    settings = scheduler_settings(model)

    pictures: list[np.ndarray] = []
    labels: list[str] = []
    for domain in options.domains:
        guided = GuidedModel.from_model(model, conditions_of(model, domain, options.label, domain), guidance)
        guided = guided.of_images(options.seed, options.images)
        x_T = guided.noise(options.seed, options.images)
        calibration = find_schedule(None, model.identity, domain, guidance)

        # the classical samplers on their best grids, then the adaptive one with as many steps and with twice as many
        ddim, dpm = DDIMScheduler(**settings), DPMSolverScheduler(clip_sample=True, **settings)
        ddim.set_timesteps(timesteps=PowerGrid(1)(ddim.schedule, n))
        dpm.set_timesteps(timesteps=PowerGrid(2)(dpm.schedule, n))
        rows: dict[str, SchedulerCore] = {f"ddim uniform {n}": ddim, f"dpm_solver quadratic {n}": dpm}
        for steps in (n, 2 * n):
            adaptive = AdaptiveScheduler(num_inference_steps=steps, calibration=calibration, **settings)
            rows[f"adaptive {steps}"] = adaptive

        solution = converged_pictures(guided, x_T).images
        for name, scheduler in rows.items():
            drawn = images_by(scheduler, guided, x_T)
            error = paired_rmse(drawn, solution).mean()
            print(f"{domain:<12} {name:<24} RMSE {error:.4f}", flush=True)
            pictures.append(drawn)
            labels.append(f"{domain}\n{NAMES[name.split()[0]]}\n{len(scheduler)} steps\nRMSE {error:.3f}")

        pictures.append(solution)
        labels.append(f"{domain}\nconverged")

    sheet = grid(to_uint8(np.concatenate(pictures)), columns=options.images, cell=64)
    save_image(options.output, labelled(sheet, labels, [f"noise {i}" for i in range(options.images)]))
    print(options.output)
