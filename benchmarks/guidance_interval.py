"""`python -m benchmarks guidance_interval`: distance to real images and passes, by weight and interval of guidance."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from adaptive_diffusion.calibration.quick import QuickCalibration
from adaptive_diffusion.diffusion.conditions import conditions_of
from adaptive_diffusion.diffusion.guidance import Constant, Guidance, Interval
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from adaptive_diffusion.encoder.reference import load_kernel, load_reference, load_vicreg_reference
from adaptive_diffusion.encoder.vicreg import load_builtin_vicreg
from adaptive_diffusion.grids.calibrated import CalibratedGrid, find_schedule
from adaptive_diffusion.io.markdown import row_of, table
from adaptive_diffusion.metrics.frechet import frechet_caveat, frechet_distance
from adaptive_diffusion.metrics.statistics import FeatureStatistics
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DPMSolverScheduler
from adaptive_diffusion.schedulers.core import SchedulerCore
from benchmarks.common import images_by, interval_of, scheduler_settings

HEADER = ["domain", "guidance", "steps", "solver", "passes"]
HEADER += ["`fd_encoder`", "of a block", "`fd_vicreg`", "`kid_encoder`"]
BATCH = 33
NOISES = 48  # that steps are calibrated on


def main(argv: list[str]) -> None:
    """Print, for each guidance, passes per image and distances to real images, with their spread over blocks of noises.

    All rows of a domain begin with the same noises. `weights` and `2M` take the shipped timesteps of constant guidance,
    with the weights that were fitted to them, or with DPM-Solver++(2M); `stored` takes steps that are calibrated for
    the row's guidance, and the stored first prediction.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks guidance_interval", description=__doc__)
    parser.add_argument("--domains", nargs="+", default=["landscapes", "portraits"])
    parser.add_argument("--weights", nargs="+", type=float, default=[1.5], help="of guidance")
    parser.add_argument(
        "--interval", action="append", help="of log(alpha / sigma): --interval=-2.5:0.35, several times for several"
    )
    parser.add_argument("--steps", nargs="+", type=int, default=[6])
    parser.add_argument("--solvers", nargs="+", choices=("weights", "2M", "stored"), default=["weights", "2M"])
    parser.add_argument("--images", type=int, default=88, help="per block, at least 2")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--seed", type=int, default=31337, help="of the first block's noises; the next has the next")
    options = parser.parse_args(argv)
    if options.images < 2 or options.blocks < 1:
        raise ValueError(f"at least 1 block of 2 images is needed, got {options.blocks} of {options.images}")

    intervals = [interval_of(text) for text in options.interval or ["-2.5:0.35"]]
    guidance: list[Guidance] = [Constant(1.0)]
    for weight in options.weights:
        guidance += [Constant(weight), *(Interval(weight, *interval) for interval in intervals)]

    total = options.images * options.blocks
    print(f"n = {total} images a row ({options.blocks} x {options.images}); +- sd over blocks, of kid over subsets\n")
    print("\n".join(table(HEADER, [], "llrlrrrrr")), flush=True)

    measure = Measure(options.images, options.blocks, options.seed)
    for domain in options.domains:
        for some in guidance:
            for n in options.steps:
                for solver in options.solvers:
                    m = measure(domain, some, n, solver)
                    block = f"{np.mean(m.fds):.1f} +- {np.std(m.fds, ddof=1):.1f}" if options.blocks > 1 else ""
                    cells = [domain, some.name, f"{n}", solver, f"{m.passes:g}", f"{m.fd:.1f}", block]
                    print(row_of([*cells, f"{m.vicreg:.1f}", f"{m.kid:.3f} +- {m.kid_spread:.3f}"]), flush=True)

    if caveat := frechet_caveat(total, m.dimensions):
        print(f"\n`fd_encoder`: {caveat}.")


class Measured(NamedTuple):
    """What was measured of one guidance: passes per image, and distances to the real images.

    Attributes:
        passes: Through the network, per image.
        fd: Frechet distance of all images.
        fds: That of each block.
        vicreg: That of all images by the encoder without labels.
        kid: Kernel distance of all images.
        kid_spread: Its standard deviation over random subsets.
        dimensions: Width of the features.
    """

    passes: float
    fd: float
    fds: list[float]
    vicreg: float
    kid: float
    kid_spread: float
    dimensions: int


@dataclass
class Measure:
    """Draws with the shipped model and compares with the real images of a domain.

    Args:
        pictures: Images per block.
        blocks: Number of blocks.
        seed: Of the first block.
    """

    pictures: int
    blocks: int
    seed: int

    def __post_init__(self) -> None:
        self.model, self.encoder, self.vicreg = load_builtin_model(), load_builtin_encoder(), load_builtin_vicreg()

    def __call__(self, domain: str, guidance: Guidance, n: int, solver: str) -> Measured:
        """One row: a domain and its guidance, drawn in n steps by one of the `--solvers`."""
        conditions = conditions_of(self.model, domain, None, domain)
        scheduler = self._scheduler(GuidedModel.from_model(self.model, conditions, guidance, domain=domain), n, solver)
        model = GuidedModel.from_model(self.model, conditions, guidance)

        features, others = [], []
        for seed in range(self.seed, self.seed + self.blocks):
            x_T = model.noise(seed, self.pictures)
            images = images_by(scheduler, model.of_images(seed, self.pictures), x_T, BATCH)
            features.append(self.encoder.features(images))
            others.append(self.vicreg.features(images))

        real, together = load_reference(domain, self.encoder), np.concatenate(features)
        without_labels, _ = load_vicreg_reference(domain, self.vicreg)
        kid = load_kernel(domain, self.encoder).distance(together)
        passes = model.cost.passes / (self.pictures * self.blocks)
        fd, fds = _fd(together, real), [_fd(f, real) for f in features]
        vicreg = _fd(np.concatenate(others), without_labels)
        return Measured(passes, fd, fds, vicreg, kid.mean, kid.std, together.shape[1])

    def _scheduler(self, model: GuidedModel, n: int, solver: str) -> SchedulerCore:
        settings = scheduler_settings(self.model)
        if solver == "stored":
            (own,) = QuickCalibration(steps=(n,), noises=NOISES).calibrate(model)
            return AdaptiveScheduler(num_inference_steps=n, calibration=own, first_evaluation="stored", **settings)

        calibration = find_schedule(None, model.identity, model.domain, self.model.metadata["guidance_scale"])
        assert calibration is not None
        if solver == "weights":
            return AdaptiveScheduler(num_inference_steps=n, calibration=calibration, **settings)
        alone = DPMSolverScheduler(clip_sample=True, **settings)
        alone.set_timesteps(timesteps=CalibratedGrid(calibration)(alone.schedule, n))
        return alone


def _fd(features: np.ndarray, real: FeatureStatistics) -> float:
    return frechet_distance(FeatureStatistics.from_features(features, real.encoder, real.encoder_hash), real)
