"""A cell of the benchmark, a domain and a sampling method, what all cells share, and a cell's measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusion.conditions import Conditions
from ..diffusion.guidance import Guidance, identity_of
from ..encoder.domain import DomainDetector
from ..encoder.encoder import Encoder
from ..grids.base import Spacing
from ..metrics.statistics import FeatureStatistics
from ..sampling.converged import TOLERANCE
from ..sampling.standard import StandardSampler
from ..types import PictureModel
from .second_encoder import SecondEncoder


@dataclass(frozen=True)
class Cell:
    """A domain and a sampling method.

    Attributes:
        domain: Name of the domain, which has reference statistics of real images.
        conditions: What images are conditioned on, see `conditions_of`.
        scheduler: Name of the scheduler, for the tables.
        grid_name: Name of the grid.
        num_steps: Steps, >= 1.
        sampler: The sampler with its scheduler, which fits the model.
        grid: Where to evaluate the network; None: the scheduler's own spacing.
        variant: Further settings that distinguish the cell, for the tables, e.g. ("guidance_scale=2",).
        settings: Constructor arguments of scheduler, grid and sampler, JSON types: they too decide the images.
    """

    domain: str
    conditions: Conditions
    scheduler: str
    grid_name: str
    num_steps: int
    sampler: StandardSampler
    grid: Spacing | None = None
    variant: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What all cells share. Block k has the seed `seed` + k. Image i of a seed has the same noise in every cell.

    Attributes:
        model: The network.
        guidance_scale: Weight of classifier-free guidance, >= 0, or `Guidance`.
        encoder: Compares images.
        reference: Domain -> statistics of its real images, by the same encoder.
        pictures: Images per block, >= 2.
        seed_blocks: Number of blocks, >= 1; the report gives the spread over blocks.
        seed: Seed of the first block, >= 0.
        batch_size: Images drawn at once.
        tolerance: See `converged_pictures`; None: nothing is compared with converged solutions.
        cache: Folder of converged solutions, or None.
        second_encoder: Domain -> the VICReg encoder, or None where it knows no real images of the domain.
        detector: Tells the domain of an image, or None.
    """

    model: PictureModel
    guidance_scale: float | Guidance
    encoder: Encoder
    reference: Callable[[str], FeatureStatistics]
    pictures: int = 88
    seed_blocks: int = 3
    seed: int = 0
    batch_size: int = 16
    tolerance: float | None = TOLERANCE
    cache: Path | None = None
    second_encoder: Callable[[str], SecondEncoder | None] = lambda domain: None
    detector: DomainDetector | None = None

    @property
    def identity(self) -> str:
        """Hash of the model with its guidance."""
        return identity_of(self.model, self.guidance_scale)


@dataclass(frozen=True)
class BlockResult:
    """Measurements of one block. Three of them are None without converged solutions: a stochastic scheduler has none;
    see `Bench.tolerance`.

    Attributes:
        seed: Seed of the block.
        fd_encoder: Frechet distance to the real images of the domain.
        fd_converged: Frechet distance to the converged solutions from the same noises, or None.
        rmse: RMSE of each image to its converged solution, in [-1, 1] units, or None.
        perceptual: Perceptual distance of each image to its converged solution, or None.
        evaluations: Network evaluations per image; a guided evaluation counts once.
        seconds: Seconds of drawing per image.
        passes: Passes through the network per image; a guided evaluation counts twice. None: measured before passes
            were counted.
        fd_vicreg: Frechet distance to the real images by the VICReg encoder. This and the next are None without
            that encoder, and where they were measured before it was used.
        precision, recall: See `ClusterReference`.
        domain_agreement: Share of the images that the detector takes for the domain, or None.
    """

    seed: int
    fd_encoder: float
    fd_converged: float | None
    rmse: tuple[float, ...] | None
    perceptual: tuple[float, ...] | None
    evaluations: float
    seconds: float
    passes: float | None = None
    fd_vicreg: float | None = None
    precision: float | None = None
    recall: float | None = None
    domain_agreement: float | None = None


@dataclass(frozen=True)
class CellResult:
    """Measurements of a cell.

    Attributes:
        domain, scheduler, grid, variant, num_steps: The cell.
        pictures: Images per block.
        dimensions: Width of the encoder's features.
        blocks: The blocks.
        fd_encoder: Frechet distance of the images of all blocks together to the real images.
        fd_converged: The same to the converged solutions, or None.
        converged_steps: Steps of the least refined converged solution, or None.
        converged_rmse: Mean RMSE between converged solutions and those of twice the steps, or None.
        converged_perceptual: The same as a perceptual distance, or None.
        model: Hash of the model with its guidance.
        encoder: Name and hash of the encoder.
        calibration: Digest of the calibrated steps, see `steps_digest`; "" without calibration.
        fd_vicreg, precision, recall: Of the images of all blocks together, or None; see `BlockResult`.
        vicreg: Name and hash of the encoder without labels, or "".
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
    fd_vicreg: float | None = None
    precision: float | None = None
    recall: float | None = None
    vicreg: str = ""

    @property
    def method(self) -> str:
        """Scheduler, grid and variant: a curve of a plot."""
        return " ".join((self.scheduler, self.grid, *self.variant))

    @property
    def name(self) -> str:
        """Method and steps: a row of a table within its domain."""
        return f"{self.method} {self.num_steps}"

    def paired(self, metric: str) -> np.ndarray | None:
        """(blocks * images,) `rmse` or `perceptual` of every image; None for a stochastic scheduler."""
        values = [getattr(block, metric) for block in self.blocks]
        return None if None in values else np.concatenate([np.asarray(v, np.float64) for v in values])
