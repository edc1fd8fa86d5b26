"""`python -m benchmarks tuned`: tuned configurations beside the default, on the same noises.

The two take turns batch by batch, so that other work of the machine affects both. Where tuning left the default, it
alone is measured.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from adaptive_diffusion.benchmark.measure import steps_digest
from adaptive_diffusion.diffusion.checks import check_count
from adaptive_diffusion.diffusion.conditions import Same
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from adaptive_diffusion.encoder.reference import load_reference
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.io.files import atomic_path
from adaptive_diffusion.io.markdown import MINUS, table
from adaptive_diffusion.metrics.frechet import frechet_caveat, frechet_distance
from adaptive_diffusion.metrics.statistics import FeatureStatistics
from adaptive_diffusion.optimization.configuration import DomainConfig
from adaptive_diffusion.optimization.domain_adapter import DomainAdapter
from adaptive_diffusion.optimization.domains import DomainType
from adaptive_diffusion.optimization.memory import read_records
from adaptive_diffusion.optimization.pipeline import OptimizationPipeline
from adaptive_diffusion.rl.convergence import standard_error
from adaptive_diffusion.sampling.batches import draw_batches
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.types import SampleResult

DEFAULT, TUNED = "default", "tuned"


@dataclass(frozen=True)
class Block:
    """Measurements of one configuration in one block of noises; a row of the file.

    Attributes:
        domain: Name of the domain.
        kind: `default` or `tuned`.
        configuration: Its hyperparameters, in words.
        calibration: Digest of its calibrated steps, see `steps_digest`; "" without.
        model: Identity of the model with its guidance.
        encoder: Hash of the encoder.
        seed: Seed of the block's noises.
        images: Images in the block.
        evaluations: Network evaluations per image.
        fd_encoder: Frechet distance to the real images of the domain.
        seconds: Seconds of drawing per image.
    """

    domain: str
    kind: str
    configuration: str
    calibration: str
    model: str
    encoder: str
    seed: int
    pictures: int
    evaluations: float
    fd_encoder: float
    seconds: float


def configurations(pipeline: OptimizationPipeline, domain: str) -> dict[str, DomainConfig]:
    """The default, and the tuned configuration if it differs."""
    default = pipeline.default_config(domain)
    tuned = replace(pipeline.adapter.get_config(domain), calibration=default.calibration)
    return {DEFAULT: default} if tuned == default else {DEFAULT: default, TUNED: tuned}


def measure(
    pipeline: OptimizationPipeline, domain: str, *, pictures: int, blocks: int, seed: int = 5000, batch_size: int = 16
) -> Iterator[Block]:
    """Draw and measure a domain's configurations.

    Args:
        pipeline: Gives the model, the default and the tuned configurations.
        domain: A domain of the model.
        images: Images per block, >= 2; a Frechet distance needs four for each feature of the encoder.
        blocks: Blocks of noises, >= 2.
        seed: Seed of the first block; each further block has the next seed.
        batch_size: Images drawn at once.

    Yields:
        For each block, the measurements of each configuration.

    Raises:
        UserError: for a domain that the model does not draw, or without reference statistics.
        ValueError: for a value out of range.
    """
    check_count("pictures", pictures, 2)
    check_count("blocks", blocks, 2)
    drawing, encoder = pipeline.drawing(domain), load_builtin_encoder()
    real = load_reference(domain, encoder)
    configs = configurations(pipeline, domain)

    # the first batch of a process is slower: draw one of each, untimed
    for _ in zip(*(_batches(c, drawing, seed, batch_size, batch_size) for c in configs.values()), strict=True):
        pass
    for block in range(seed, seed + blocks):
        runs = [_batches(config, drawing, block, pictures, batch_size) for config in configs.values()]
        # zip makes the configurations take turns, batch by batch
        drawn = list(zip(*runs, strict=True))

        for (kind, config), batches in zip(configs.items(), zip(*drawn, strict=True), strict=True):
            images = np.clip(np.concatenate([np.array(b.images) for b in batches]), -1, 1)
            found = FeatureStatistics.from_features(encoder.features(images), encoder.name, encoder.content_hash)

            yield Block(
                seed=block,
                pictures=pictures,
                evaluations=sum(b.total_evaluations for b in batches) / pictures,
                fd_encoder=frechet_distance(found, real),
                seconds=sum(b.seconds for b in batches) / pictures,
                **_what(domain, kind, config, drawing.guided_identity, encoder.content_hash),
            )


def stale(pipeline: OptimizationPipeline, domains: Sequence[str], path: Path) -> str | None:
    """Why a file does not compare the configurations of today, or None if it does.

    Args:
        pipeline: See `measure`.
        domains: Domains that the file must hold.
        path: A file of `write_blocks`.
    """
    try:
        blocks = read_blocks(path)
    except UserError as error:
        return str(error)

    encoder = load_builtin_encoder().content_hash
    for domain in domains:
        model = pipeline.drawing(domain).guided_identity
        now = [_what(domain, kind, config, model, encoder) for kind, config in configurations(pipeline, domain).items()]

        measured = [{name: getattr(block, name) for name in now[0]} for block in blocks if block.domain == domain]
        if any(what not in measured for what in now) or any(what not in now for what in measured):
            return f"it compares other configurations of {domain}, or was measured with another model or encoder"

    return None


def write_blocks(path: Path, blocks: Sequence[Block]) -> None:
    """Write a CSV file, a row for each block and configuration."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, [f.name for f in fields(Block)])
        rows.writeheader()
        rows.writerows(asdict(block) for block in blocks)


def read_blocks(path: Path) -> list[Block]:
    """Read what `write_blocks` wrote.

    Raises:
        UserError: if the file is missing or of another kind.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [_block(**row) for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise UserError(f"there is no {path}; python -m benchmarks tuned --output makes it") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} does not compare tuned configurations ({error}); make it again") from error


def comparison(blocks: Sequence[Block]) -> list[str]:
    """A Markdown table with a row per domain: default -> tuned, and the difference, ± two standard errors over blocks.

    Args:
        blocks: Of any domains, at least two blocks of each, the same blocks of both kinds.
    """
    rows = []
    for domain in dict.fromkeys(block.domain for block in blocks):
        some = [block for block in blocks if block.domain == domain]
        kinds = [found for kind in (DEFAULT, TUNED) if (found := [b for b in some if b.kind == kind])]
        cells = [_changed(kinds, metric) for metric in ("fd_encoder", "seconds")]
        evaluations = " → ".join(f"{np.mean([b.evaluations for b in kind]):g}" for kind in kinds)
        rows.append([domain, evaluations, *cells, f"{len(kinds[0])} x {kinds[0][0].pictures}"])

    header = ["default → tuned", "evaluations", "`fd_encoder`", "seconds per image", "n"]
    return table(header, rows)


def main(argv: list[str]) -> None:
    """Measure domain after domain, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tuned", description=__doc__)
    parser.add_argument("--domains", nargs="+", default=list(DomainType), help="domains of the shipped model")
    parser.add_argument("--tuned", type=Path, help="file that train.py agent=... wrote; default: what ships")
    parser.add_argument("--pictures", type=int, default=264, help="images per block, four for each feature or more")
    parser.add_argument("--blocks", type=int, default=8, help="blocks of noises; the spread is that over them")
    parser.add_argument("--output", type=Path, help="CSV file of the blocks to write")
    options = parser.parse_args(argv)

    if options.tuned is not None:
        read_records(options.tuned)  # an adapter would begin a missing file

    pipeline = OptimizationPipeline(DomainAdapter(options.tuned))

    blocks: list[Block] = []
    for domain in options.domains:
        blocks += measure(pipeline, domain, pictures=options.pictures, blocks=options.blocks)
        print(f"{domain} is measured", flush=True)

    if options.output is not None:
        write_blocks(options.output, blocks)

    print("\n".join(comparison(blocks)))
    dimensions = len(load_reference(options.domains[0], load_builtin_encoder()).mean)
    if caveat := frechet_caveat(options.pictures, dimensions):
        print(f"fd_encoder is {caveat}")


def _what(domain: str, kind: str, config: DomainConfig, model: str, encoder: str) -> dict[str, str]:
    """The columns that say what a block measures."""
    return {
        "domain": domain,
        "kind": kind,
        "configuration": str(config),
        "calibration": steps_digest(config.calibration, config.num_steps),
        "model": model,
        "encoder": encoder,
    }


def _batches(
    config: DomainConfig, drawing: GuidedModel, seed: int, pictures: int, batch_size: int
) -> Iterator[SampleResult]:
    assert drawing.state_shape is not None
    scheduler = config.scheduler(drawing.settings)
    return draw_batches(
        StandardSampler(scheduler),
        drawing,
        lambda: scheduler.set_timesteps(config.num_steps),
        drawing.state_shape,
        seed=seed,
        count=pictures,
        batch_size=batch_size,
        conditions=drawing.mixture or Same(),
    )


def _block(seed: str, pictures: str, evaluations: str, fd_encoder: str, seconds: str, **words: str) -> Block:
    """Parse a row of the file."""
    return Block(
        seed=int(seed),
        pictures=int(pictures),
        evaluations=float(evaluations),
        fd_encoder=float(fd_encoder),
        seconds=float(seconds),
        **words,
    )


def _changed(kinds: Sequence[Sequence[Block]], metric: str) -> str:
    """`a ± 2 SE`, or `a ± 2 SE → b ± 2 SE (difference ± 2 SE)`."""
    values = [np.array([getattr(block, metric) for block in kind]) for kind in kinds]
    text = " → ".join(_interval(v) for v in values)
    if len(values) == 1:
        return text
    return f"{text} ({_interval(values[1] - values[0], sign='+')})".replace("-", MINUS)


def _interval(values: np.ndarray, sign: str = "") -> str:
    """The mean ± two standard errors, to the first digit of the error."""
    error = 2 * standard_error(values)
    decimals = max(-math.floor(math.log10(error)), 0) if error > 0 else 6
    return f"{values.mean():{sign}.{decimals}f} ± {error:.{decimals}f}"
