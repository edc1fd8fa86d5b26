"""Cells that are measured once: each is saved as a small JSON file, named by everything that decides its numbers."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..io.files import parse_json, write_json
from .cell import Bench, BlockResult, Cell, CellResult

log = logging.getLogger(__name__)

CACHE_VERSION = 3  # raised when a change of the code changes a cell's numbers, so that old files are not used


def cell_path(folder: Path, cell: Cell, bench: Bench) -> Path:
    """Where a cell's result belongs."""
    return folder / f"{fingerprint(cell, bench)}.json"


def fingerprint(cell: Cell, bench: Bench) -> str:
    """A hash of everything that decides a cell's numbers: model, encoder, reference, settings."""
    scheduler = cell.sampler.scheduler
    config = {k: v for k, v in scheduler.config.items() if k != "trained"}  # where a policy was looked for; it is known
    real, second = bench.reference(cell.domain), bench.second_encoder(cell.domain)
    identity: dict[str, Any] = {
        "numbers": CACHE_VERSION,
        "model": bench.identity,
        "encoder": [bench.encoder.name, bench.encoder.content_hash],
        "reference": hashlib.sha256(real.mean.tobytes() + real.covariance.tobytes()).hexdigest(),
        "blocks": [bench.seed, bench.seed_blocks, bench.pictures, bench.batch_size],
        "tolerance": bench.tolerance,
        "cell": [cell.domain, cell.conditions.content, cell.num_steps],
        "scheduler": [type(scheduler).__name__, config],
        "grid": repr(cell.grid),
        "sampler": _named(cell.sampler),
        "settings": cell.settings,
    }
    if second is not None:
        identity["second encoder"] = second.identity
    if bench.detector is not None:
        identity["detector"] = bench.detector.encoder.content_hash
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _named(sampler: object) -> Any:
    """A sampler's class, with its own settings if it has any."""
    name, config = type(sampler).__name__, getattr(sampler, "config", None)
    return name if config is None else [name, config]


def save_cell(path: Path, result: CellResult) -> None:
    """Write a result atomically, as JSON."""
    write_json(path, asdict(result))


def kept_cell(path: Path, cell: Cell) -> CellResult | None:
    """A cell's result in the file that belongs to it, see `load_cell`, which may come from a cell with other names."""
    result = load_cell(path)
    return result and replace(result, scheduler=cell.scheduler, grid=cell.grid_name, variant=cell.variant)


def load_cell(path: Path) -> CellResult | None:
    """Read what `save_cell` wrote; None if the file is missing or damaged."""
    try:
        found: dict[str, Any] = parse_json(path.read_bytes())
        blocks: list[dict[str, Any]] = found.pop("blocks")
        variant = tuple(found.pop("variant"))
        return CellResult(blocks=tuple(_block(**block) for block in blocks), variant=variant, **found)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning("%s is no whole result of a cell and is not used", path)
        return None


def _block(rmse: list[float] | None, perceptual: list[float] | None, **rest: Any) -> BlockResult:
    """A block, whose tuples JSON made lists."""
    return BlockResult(
        rmse=None if rmse is None else tuple(rmse),
        perceptual=None if perceptual is None else tuple(perceptual),
        **rest,
    )
