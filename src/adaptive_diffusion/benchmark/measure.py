"""Measures a cell of the benchmark: draws its blocks and compares them with real images and converged solutions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import numpy as np

from ..diffusion.facts import ModelFacts
from ..diffusion.guided_model import GuidedModel
from ..grids.calibrated_schedule import CalibratedSchedule
from ..io.counted import count
from ..io.progress import Progress
from ..metrics.frechet import frechet_distance
from ..metrics.statistics import FeatureStatistics
from ..sampling.batches import draw_batches
from ..sampling.converged import Converged, converged_pictures, paired_rmse
from ..sampling.starts import set_timesteps
from ..types import StepTrace
from .cell import Bench, BlockResult, Cell, CellResult

StepDone = Callable[[StepTrace], None]


def measure_cell(cell: Cell, bench: Bench, progress: StepDone | None = None) -> CellResult:
    """Draw a cell's blocks and measure them.

    Raises:
        ValueError: for a domain without reference statistics, fewer than 2 images per block, or a number of steps
            out of range.
    """
    real, second = bench.reference(cell.domain), bench.second_encoder(cell.domain)
    model = cell.sampler.scheduler.guided(bench.model, None, bench.guidance_scale)

    # one entry per block; the converged solutions stay empty where nothing is compared with them, as of a stochastic
    # scheduler, whose images have other noise
    blocks, features, seconds, targets, solutions = [], [], [], [], []
    for seed in range(bench.seed, bench.seed + bench.seed_blocks):
        images, cost = _draw(cell, bench, model, seed, progress)
        features.append(bench.encoder.features(images))
        fd_real = frechet_distance(_statistics(bench, features[-1]), real)
        more = _agreement(bench, cell.domain, images)
        if second is not None:
            seconds.append(second.encoder.features(images))
            more |= second.measure(seconds[-1])

        if bench.tolerance is None or cell.sampler.scheduler.stochastic:
            blocks.append(BlockResult(seed, fd_real, None, None, None, *cost, **more))
            continue

        solution = _converged(cell, bench, seed, bench.tolerance)
        solutions.append(solution)
        targets.append(bench.encoder.features(solution.images))

        fd = frechet_distance(features[-1], targets[-1])
        rmse = paired_rmse(images, solution.images)
        perceptual = bench.encoder.perceptual_distances(images, solution.images)
        blocks.append(BlockResult(seed, fd_real, fd, _rounded(rmse), _rounded(perceptual), *cost, **more))

    # a Frechet distance falls with the number of images, so it is also taken over all blocks together
    together = np.concatenate(features)
    doubling = [bench.encoder.perceptual_distances(s.images[: len(s.finer)], s.finer).mean() for s in solutions]

    return CellResult(
        domain=cell.domain,
        scheduler=cell.scheduler,
        grid=cell.grid_name,
        variant=cell.variant,
        num_steps=cell.num_steps,
        pictures=bench.pictures,
        dimensions=together.shape[1],
        blocks=tuple(blocks),
        fd_encoder=frechet_distance(_statistics(bench, together), real),
        fd_converged=frechet_distance(together, np.concatenate(targets)) if targets else None,
        converged_steps=min(s.steps for s in solutions) if solutions else None,
        converged_rmse=float(np.mean([s.change for s in solutions])) if solutions else None,
        converged_perceptual=float(np.mean(doubling)) if solutions else None,
        model=bench.identity,
        encoder=f"{bench.encoder.name} {bench.encoder.content_hash}",
        calibration=steps_digest(getattr(cell.sampler.scheduler, "calibration", None), cell.num_steps),
        vicreg="" if second is None else second.name,
        **({} if second is None else second.measure(np.concatenate(seconds))),
    )


def steps_digest(calibration: CalibratedSchedule | None, num_steps: int) -> str:
    """12 hex digits of the timesteps and weights calibrated for a number of steps; "" if there are none for it."""
    steps = None if calibration is None else calibration.used(num_steps)
    if steps is None:
        return ""
    return hashlib.sha256(json.dumps([steps.timesteps, steps.corrections]).encode()).hexdigest()[:12]


def _draw(
    cell: Cell, bench: Bench, model: GuidedModel, seed: int, progress: StepDone | None
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """(N, H, W, C) images in [-1, 1]; evaluations, seconds and passes through the network, each per image."""
    schedule, scheduler, before = ModelFacts.of(bench.model).process, cell.sampler.scheduler, replace(model.cost)
    batches = list(
        draw_batches(
            cell.sampler,
            model,
            lambda: set_timesteps(scheduler, cell.grid, schedule, cell.num_steps),
            bench.model.state_shape,
            seed=seed,
            count=bench.pictures,
            batch_size=bench.batch_size,
            conditions=cell.conditions,
            progress=progress,
        )
    )

    images = np.concatenate([_images(bench, b.images) for b in batches])
    spent = model.cost.evaluations - before.evaluations, model.cost.passes - before.passes
    evaluations, passes = (total / bench.pictures for total in spent)
    return images, (evaluations, sum(b.seconds for b in batches) / bench.pictures, passes)


def _converged(cell: Cell, bench: Bench, seed: int, tolerance: float) -> Converged:
    trained = {"prediction_type": cell.sampler.scheduler.prediction_type}
    model = GuidedModel.from_model(bench.model, cell.conditions, bench.guidance_scale, **trained)
    with Progress(f"converged solutions of {count(bench.pictures, 'image')}", unit="solver step") as shown:
        found = converged_pictures(
            model.of_images(seed, bench.pictures),
            model.noise(seed, bench.pictures),
            tolerance=tolerance,
            batch_size=bench.batch_size,
            cache=bench.cache,
            progress=shown.update,
        )
    return Converged(_images(bench, found.images), _images(bench, found.finer), found.steps)


def _agreement(bench: Bench, domain: str, images: np.ndarray) -> dict[str, float]:
    """The share of images that are taken for the domain, if the detector knows it."""
    if bench.detector is None or domain not in bench.detector.encoder.config.domains:
        return {}
    return {"domain_agreement": bench.detector.agreement(images, domain)}


def _images(bench: Bench, states: mx.array | np.ndarray) -> np.ndarray:
    """The (N, H, W, C) images in [-1, 1] of clean states."""
    return np.clip(np.array(bench.model.decode(mx.array(states))), -1, 1)


def _statistics(bench: Bench, features: np.ndarray) -> FeatureStatistics:
    return FeatureStatistics.from_features(features, bench.encoder.name, bench.encoder.content_hash)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{v:.6g}") for v in values)
