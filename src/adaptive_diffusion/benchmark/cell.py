"""One cell of the benchmark: a domain and a way of drawing, measured over blocks of seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from ..diffusion.guidance import GuidedDenoiser, identity_of
from ..diffusion.guided_model import GuidedModel
from ..diffusion.schedule import NoiseSchedule
from ..grids.calibrated import CalibratedSchedule
from ..grids.grids import Grid, set_timesteps
from ..metrics.features import FeatureEncoder
from ..metrics.frechet import frechet_distance
from ..metrics.statistics import FeatureStatistics
from ..sampling.batches import draw_batches
from ..sampling.converged import TOLERANCE, Converged, converged_pictures, paired_rmse
from ..sampling.standard import StandardSampler, whole
from ..types import PictureModel, StepTrace

Progress = Callable[[StepTrace], None]


class PairedEncoder(FeatureEncoder, Protocol):
    """An encoder that also compares pictures in pairs."""

    def perceptual_distances(self, a: Any, b: Any) -> np.ndarray:
        """(N, H, W, 3) and (N, H, W, 3) pictures in [-1, 1] -> (N,) distances >= 0."""
        ...


@dataclass(frozen=True)
class Cell:
    """A domain and a way of drawing.

    Attributes:
        domain: Name of the domain; of its real pictures there are reference statistics.
        condition: Class ids of the domain in the model; () for an unconditional one.
        scheduler: Name of the scheduler, for the tables.
        grid_name: Name of the grid.
        num_steps: Steps.
        sampler: The loop, around its scheduler, which is fitted to the model.
        grid: Where to evaluate the model; None: the scheduler's own spacing.
        variant: What else distinguishes the cell, for the tables, e.g. ("guidance_scale=2",).
        settings: What decides the pictures besides, JSON types: constructor arguments of scheduler, grid and sampler.
    """

    domain: str
    condition: tuple[int, ...]
    scheduler: str
    grid_name: str
    num_steps: int
    sampler: StandardSampler
    grid: Grid | None = None
    variant: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What all cells share. Blocks have the seeds `seed`, `seed` + 1, ...; picture i of a seed has the same noise.

    Attributes:
        model: The network.
        guidance_scale: Weight of classifier-free guidance, >= 0.
        encoder: What pictures are compared by.
        reference: Gives the statistics of the real pictures of a domain, by the same encoder.
        pictures: Pictures per block, >= 2.
        seed_blocks: Number of blocks, >= 1; the spread over them is reported.
        seed: Of the first block, >= 0.
        batch_size: Pictures drawn at once.
        tolerance: See `converged_pictures`.
        cache: Folder that keeps converged solutions, or None.
    """

    model: PictureModel
    guidance_scale: float
    encoder: PairedEncoder
    reference: Callable[[str], FeatureStatistics]
    pictures: int = 88
    seed_blocks: int = 3
    seed: int = 0
    batch_size: int = 16
    tolerance: float = TOLERANCE
    cache: Path | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of a state of the model."""
        return self.model.state_shape

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule that the model was trained with."""
        return NoiseSchedule(**self.model.metadata.get("noise_schedule", {}))

    @property
    def identity(self) -> str:
        """What decides the model's predictions."""
        return identity_of(self.model, self.guidance_scale)


@dataclass(frozen=True)
class BlockResult:
    """What one block of seeds gave. None where the scheduler is stochastic: its noise, and so its picture, is another.

    Attributes:
        seed: Of the block.
        fd_encoder: Frechet distance to the real pictures of the domain.
        fd_converged: Frechet distance to the converged solutions from the same noises, or None.
        rmse: RMSE of each picture to its converged solution, in [-1, 1] units, or None.
        perceptual: Perceptual distance of each picture to its converged solution, or None.
        evaluations: Model evaluations per picture (a guided evaluation counts once).
        seconds: Seconds per picture of drawing.
    """

    seed: int
    fd_encoder: float
    fd_converged: float | None
    rmse: tuple[float, ...] | None
    perceptual: tuple[float, ...] | None
    evaluations: float
    seconds: float


@dataclass(frozen=True)
class CellResult:
    """What a cell gave.

    Attributes:
        domain, scheduler, grid, variant, num_steps: The cell.
        pictures: Pictures per block.
        dimensions: Width of the encoder's features.
        blocks: The blocks.
        fd_encoder: Frechet distance of all blocks' pictures together to the real pictures.
        fd_converged: The same to the converged solutions, or None.
        converged_steps: Steps of the least refined converged solution, or None.
        converged_rmse: What doubling the converged solutions' steps changes, mean RMSE, or None.
        converged_perceptual: The same as a perceptual distance, or None.
        model: What decided the model's predictions.
        encoder: Name and hash of the encoder.
        calibration: Digest of the calibrated steps that were taken, see `steps_digest`; "" for a scheduler without.
    """

    domain: str
    scheduler: str
    grid: str
    variant: tuple[str, ...]
    num_steps: int
    pictures: int
    dimensions: int
    blocks: tuple[BlockResult, ...]
    fd_encoder: float
    fd_converged: float | None
    converged_steps: int | None
    converged_rmse: float | None
    converged_perceptual: float | None
    model: str = ""
    encoder: str = ""
    calibration: str = ""

    @property
    def method(self) -> str:
        """Scheduler, grid and variant: what a curve of a plot is about."""
        return " ".join((self.scheduler, self.grid, *self.variant))

    @property
    def name(self) -> str:
        """Method and steps: a row of a table within its domain."""
        return f"{self.method} {self.num_steps}"

    def paired(self, metric: str) -> np.ndarray | None:
        """(blocks x pictures,) `rmse` or `perceptual` of every picture, or None for a stochastic scheduler."""
        values = [getattr(block, metric) for block in self.blocks]
        return None if None in values else np.concatenate([np.asarray(v, np.float64) for v in values])


def measure_cell(cell: Cell, bench: Bench, progress: Progress | None = None) -> CellResult:
    """Draw a cell's blocks and measure them.

    Raises:
        UserError: if there are no reference statistics of the domain.
        ValueError: for fewer than 2 pictures per block, or a number of steps out of range.
    """
    real = bench.reference(cell.domain)
    denoiser = GuidedDenoiser(bench.model, bench.guidance_scale)
    blocks, features, targets, solutions = [], [], [], []
    for seed in range(bench.seed, bench.seed + bench.seed_blocks):
        images, evaluations, seconds = _draw(cell, bench, denoiser, seed, progress)
        features.append(bench.encoder.features(images))
        fd_real = frechet_distance(_statistics(bench, features[-1]), real)
        if cell.sampler.scheduler.stochastic:
            blocks.append(BlockResult(seed, fd_real, None, None, None, evaluations, seconds))
            continue
        solution = _converged(cell, bench, seed)
        solutions.append(solution)
        targets.append(bench.encoder.features(solution.images))
        fd = frechet_distance(features[-1], targets[-1])
        rmse = paired_rmse(images, solution.images)
        perceptual = bench.encoder.perceptual_distances(images, solution.images)
        blocks.append(BlockResult(seed, fd_real, fd, _rounded(rmse), _rounded(perceptual), evaluations, seconds))
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
    )


def steps_digest(calibration: CalibratedSchedule | None, num_steps: int) -> str:
    """12 hex digits of the timesteps and weights calibrated for a number of steps; "" if there are none for it."""
    steps = None if calibration is None else calibration.used(num_steps)
    if steps is None:
        return ""
    return hashlib.sha256(json.dumps([steps.timesteps, steps.corrections]).encode()).hexdigest()[:12]


def _draw(
    cell: Cell, bench: Bench, denoiser: GuidedDenoiser, seed: int, progress: Progress | None
) -> tuple[np.ndarray, float, float]:
    """Pictures (N, H, W, C) in [-1, 1], evaluations per picture, seconds per picture."""
    schedule, scheduler = bench.schedule, cell.sampler.scheduler
    batches = list(
        draw_batches(
            cell.sampler,
            denoiser,
            lambda: set_timesteps(scheduler, cell.grid, schedule, cell.num_steps),
            bench.shape,
            seed=seed,
            count=bench.pictures,
            batch_size=bench.batch_size,
            condition=cell.condition,
            progress=progress,
        )
    )
    images = np.concatenate([_pictures(bench, b.images) for b in batches])
    evaluations = sum(b.total_evaluations for b in batches) / bench.pictures
    return images, evaluations, sum(b.seconds for b in batches) / bench.pictures


def _converged(cell: Cell, bench: Bench, seed: int) -> Converged:
    trained = {"prediction_type": whole(cell.sampler.scheduler).prediction_type}
    model = GuidedModel.from_model(bench.model, cell.condition, bench.guidance_scale, **trained)
    found = converged_pictures(
        model,
        model.noise(seed, bench.pictures),
        tolerance=bench.tolerance,
        batch_size=bench.batch_size,
        cache=bench.cache,
    )
    return Converged(_pictures(bench, found.images), _pictures(bench, found.finer), found.steps)


def _pictures(bench: Bench, states: mx.array | np.ndarray) -> np.ndarray:
    """(N, H, W, C) in [-1, 1] of clean states."""
    return np.clip(np.array(bench.model.decode(mx.array(states))), -1, 1)


def _statistics(bench: Bench, features: np.ndarray) -> FeatureStatistics:
    return FeatureStatistics.from_features(features, bench.encoder.name, bench.encoder.content_hash)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{v:.6g}") for v in values)
