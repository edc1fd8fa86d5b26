"""`python -m benchmarks loop`: the cost of the sampling loop beside the network's forward pass."""

from __future__ import annotations

import argparse

import mlx.core as mx
import numpy as np

from adaptive_diffusion.diffusion.compiled import compiled
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DDIMScheduler, DDPMScheduler, DPMSolverScheduler
from adaptive_diffusion.schedulers.core import SchedulerCore
from benchmarks.common import seconds


def main(argv: list[str]) -> None:
    """Time a forward pass, and whole loops around a network that costs nothing, in one process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks loop", description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16, help="images per batch")
    parser.add_argument("--steps", type=int, default=50, help="steps per loop")
    options = parser.parse_args(argv)

    model = load_builtin_model()
    size = model.config.image_size
    keys = image_keys(0, range(options.batch_size))
    x_T = normal(keys, (size, size, model.config.in_channels))
    t = mx.full((options.batch_size,), 500.0)
    predict = compiled(model)
    mx.eval(predict(x_T, t), x_T)
    forward = np.median([seconds(lambda: mx.eval(predict(x_T, t))) for _ in range(15)])
    print(f"forward pass, batch {options.batch_size}: {forward * 1e3:.2f} ms")

    # a network that costs nothing leaves the cost of the loop
    def free(x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        return x

    schedulers: list[SchedulerCore] = [DDPMScheduler(), DDIMScheduler(), DPMSolverScheduler(), AdaptiveScheduler()]
    for scheduler in schedulers:
        scheduler.set_timesteps(options.steps)
        sampler = StandardSampler(scheduler)
        steps = [s for _ in range(5) for s in sampler.run(free, x_T, keys=keys).step_seconds]
        cost = np.median(steps)
        print(f"{type(scheduler).__name__:20s} {cost * 1e3:6.3f} ms a step, {cost / forward:6.2%} of the forward pass")
