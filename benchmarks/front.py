"""`python -m benchmarks front`: the sheet of the README, samplers in rows and the same noise in every column."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_diffusion.diffusion.conditions import conditions_of
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.grids.base import Spacing
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.grids.spacings import LogSNRGrid, PowerGrid
from adaptive_diffusion.io.figures import grid, labelled, save_image
from adaptive_diffusion.io.pixels import to_uint8
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DDIMScheduler
from adaptive_diffusion.schedulers.core import SchedulerCore
from adaptive_diffusion.schedulers.unipc_ipndm import UniPCScheduler
from benchmarks.common import images_by, scheduler_settings
from tools.real_tables import FRONT, INTERVAL, STORED, by_method, read_rows
from tools.tables import REAL
from tools.tuned import FOUND

SOLVERS: dict[str, Any] = {"ddim": DDIMScheduler, "unipc": UniPCScheduler}
ROWS = (
    "DDIM, 50 steps",
    "UniPC, 20 steps",
    "UniPC, 5 steps",
    "UniPC, the guidance of tuned",
    "tuned, first evaluation stored",
)
SPACINGS: dict[str, Spacing] = {"uniform": PowerGrid(1), "quadratic": PowerGrid(2), "log_snr": LogSNRGrid()}


def main(argv: list[str]) -> None:
    """Draw the first noises of the benchmark with each sampler; what was measured of it stands beside its row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks front", description=__doc__)
    parser.add_argument("--domain", default="landscapes")
    parser.add_argument("--images", type=int, default=10, help="columns")
    parser.add_argument("--seed", type=int, default=777_000, help="of the noises; default: the first block's")
    parser.add_argument("--summary", type=Path, default=Path(REAL), help="summary of experiment=benchmark_real")
    parser.add_argument("--output", type=Path, default=Path("outputs/front.png"), help="the image to write")
    options = parser.parse_args(argv)

    network, domain = load_builtin_model(), options.domain
    weight = float(network.metadata["guidance_scale"])
    conditions = conditions_of(network, domain, None, domain)
    settings = scheduler_settings(network)
    measured = by_method(read_rows(options.summary))

    sheets: list[np.ndarray] = []
    labels: list[str] = []
    for name in ROWS:
        method = FRONT[name]
        row = measured.get((domain, *method))
        if row is None:
            raise UserError(
                f"{options.summary} has no row of {domain} by {name}; experiment=benchmark_real measures it"
            )

        kind, chosen, _ = method
        guidance = FOUND[domain].guidance if chosen == INTERVAL else weight
        model = GuidedModel.from_model(network, conditions, guidance, domain=domain)
        model = model.of_images(options.seed, options.images)
        scheduler = scheduler_of(kind, int(row["num_steps"]), row["grid"], model, settings)
        sheets.append(images_by(scheduler, model, model.noise(options.seed, options.images)))

        passes = model.cost.passes / options.images
        labels.append(f"{name.replace(', ', chr(10))}\n{passes:g} passes\nfd {float(row['fd_encoder_all']):.1f}")

    sheet = grid(to_uint8(np.concatenate(sheets)), columns=options.images, cell=96)
    save_image(options.output, labelled(sheet, labels))
    print(options.output)


def scheduler_of(kind: str, steps: int, grid_name: str, model: GuidedModel, settings: dict[str, Any]) -> SchedulerCore:
    """A scheduler of the benchmark, its timesteps set."""
    if kind in ("adaptive", STORED):
        schedule = find_schedule(None, model.identity, model.domain, model.guidance_scale, num_steps=steps)
        first = "stored" if kind == STORED else "network"
        return AdaptiveScheduler(num_inference_steps=steps, calibration=schedule, first_evaluation=first, **settings)

    solver = SOLVERS[kind](clip_sample=True, **settings)
    solver.set_timesteps(timesteps=SPACINGS[grid_name](solver.schedule, steps))
    return solver
