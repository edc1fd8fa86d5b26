"""`python -m benchmarks reward_noise`: how much the reward of distances to real images varies with the batch size."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from adaptive_diffusion.io.markdown import row_of, table
from adaptive_diffusion.optimization.configuration import DomainConfig
from adaptive_diffusion.optimization.pipeline import OptimizationPipeline
from adaptive_diffusion.rl.lockstep import drawing_run, run_together
from adaptive_diffusion.rl.measurement import REAL_UNIT
from adaptive_diffusion.rl.real_noises import RealNoises
from benchmarks.common import interval_of

BATCH = 66  # images drawn at once
SUBSETS = 200  # random batches of each size
HEADER = ["domain", "images", "quality", "sd, paired", "sd, other noises"]


def main(argv: list[str]) -> None:
    """Print, for each size of a batch, mean and standard deviation of the quality of guidance in an interval.

    Quality is what `QualityReward("real")` gives against the default of `train.py agent=...`, over random batches of
    the noises drawn: paired, from the same noises, and for comparison with the baseline from other ones.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks reward_noise", description=__doc__)
    parser.add_argument("--domains", nargs="+", default=["landscapes"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 32, 66, 132], help="images of a batch")
    parser.add_argument("--images", type=int, default=528, help="drawn in all, at least twice the largest batch")
    parser.add_argument("--weight", type=float, default=1.3, help="of guidance")
    parser.add_argument("--interval", type=interval_of, default=(-2.0, 0.35), help="of log(alpha / sigma), low:high")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--seed", type=int, default=31337, help="of the noises")
    options = parser.parse_args(argv)
    if options.images < 2 * max(options.sizes):
        raise ValueError(f"batches of {max(options.sizes)} need twice as many images, got {options.images}")

    low, high = options.interval
    print("\n".join(table(HEADER, [], "lrrrr")), flush=True)
    for domain in options.domains:
        pipeline = OptimizationPipeline()
        default = pipeline.default_config(domain)
        guided = {"guidance_weight": options.weight, "guidance_low": low, "guidance_high": high}
        tried = replace(default, num_steps=options.steps, **guided)
        noises = RealNoises(pipeline.drawing(domain), pictures=options.images, batches=1, seed=options.seed)
        ours, theirs = (_drawn(config, noises) for config in (tried, default))
        for size in options.sizes:
            paired, apart = _qualities(noises, ours, theirs, size)
            cells = [domain, f"{size}", f"{paired.mean():+.2f}", f"{paired.std():.2f}", f"{apart.std():.2f}"]
            print(row_of(cells), flush=True)


def _drawn(config: DomainConfig, noises: RealNoises) -> np.ndarray:
    """(N, H, W, C) clean states."""
    x_T, states = noises.x_T(0), []
    for first in range(0, len(x_T), BATCH):
        rows, scheduler = np.arange(first, min(first + BATCH, len(x_T))), config.scheduler(noises.drawing.settings)
        run = drawing_run(scheduler, x_T[first : first + BATCH], rows, guidance=config.guidance)
        states.append(run_together(noises.drawing, [run])[0].states)
    return np.concatenate(states)


def _qualities(noises: RealNoises, ours: np.ndarray, theirs: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Qualities of random batches: with the baseline from the same noises, and from others."""
    rng, features = np.random.default_rng(0), [noises.features(states) for states in (ours, theirs)]
    paired, apart = [], []
    for _ in range(SUBSETS):
        order = rng.permutation(len(ours))
        here, elsewhere = order[:size], order[size : 2 * size]
        ours_here = noises.contributions(features[0][here]).mean()
        paired.append((noises.contributions(features[1][here]).mean() - ours_here) / REAL_UNIT)
        apart.append((noises.contributions(features[1][elsewhere]).mean() - ours_here) / REAL_UNIT)
    return np.array(paired), np.array(apart)
