"""`python -m benchmarks tuned`: tuned configurations beside the default, on the same noises.

Both draw the same pictures, batch by batch in turn, so that what else the machine does strikes both alike. Where tuning
left the default there is only one to draw.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from adaptive_diffusion.benchmark.cell import steps_digest
from adaptive_diffusion.diffusion.checks import check_count
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from adaptive_diffusion.encoder.reference import load_reference
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.io.figures import writing
from adaptive_diffusion.io.markdown import MINUS, table
from adaptive_diffusion.metrics.frechet import frechet_caveat, frechet_distance
from adaptive_diffusion.metrics.statistics import FeatureStatistics
from adaptive_diffusion.optimization.configuration import DomainConfig
from adaptive_diffusion.optimization.domain_adapter import DomainAdapter
from adaptive_diffusion.optimization.domains import DomainType
from adaptive_diffusion.optimization.knowledge import read_knowledge
from adaptive_diffusion.optimization.pipeline import OptimizationPipeline
from adaptive_diffusion.rl.convergence import standard_error
from adaptive_diffusion.sampling.batches import draw_batches
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.types import SampleResult

DEFAULT, TUNED = "default", "tuned"


@dataclass(frozen=True)
class Block:
    """What one configuration gave in one block of noises; a row of the file.

    Attributes:
        domain: What was drawn.
        kind: `default` or `tuned`.
        configuration: Its hyperparameters, in words.
        calibration: Digest of its calibrated steps, see `steps_digest`; "" without.
        model: Identity of the model with its guidance.
        encoder: Hash of the encoder.
        seed: Of the block's noises.
        pictures: Pictures of the block.
        evaluations: Model evaluations per picture.
        fd_encoder: Frechet distance to the real pictures of the domain.
        seconds: Seconds per picture of drawing.
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
    """The default, and what was tuned if that is something else."""
    default = pipeline.default_config(domain)
    tuned = replace(pipeline.adapter.get_config(domain), calibration=default.calibration)
    return {DEFAULT: default} if tuned == default else {DEFAULT: default, TUNED: tuned}


def measure(
    pipeline: OptimizationPipeline, domain: str, *, pictures: int, blocks: int, seed: int = 5000, batch_size: int = 16
) -> Iterator[Block]:
    """Draw and measure a domain's configurations.

    Args:
        pipeline: Says what is drawn, what is the default and what was tuned.
        domain: One of the model's.
        pictures: Per block, >= 2; a Frechet distance wants four for each feature of the encoder.
        blocks: Blocks of noises, >= 2.
        seed: Of the first block; the next has the next.
        batch_size: Pictures drawn at once.

    Yields:
        For each block, what each configuration gave.

    Raises:
        UserError: for a domain that the model does not draw, or that has no real pictures to compare with.
        ValueError: for a value out of range.
    """
    check_count("pictures", pictures, 2)
    check_count("blocks", blocks, 2)
    drawing, encoder = pipeline.drawing(domain), load_builtin_encoder()
    real = load_reference(domain, encoder)
    configs = configurations(pipeline, domain)
    for _ in zip(*(_batches(c, drawing, seed, batch_size, batch_size) for c in configs.values()), strict=True):
        pass  # the first batch of a process is slower
    for block in range(seed, seed + blocks):
        runs = [_batches(config, drawing, block, pictures, batch_size) for config in configs.values()]
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
    """Why a file does not compare what is tuned now, or None.

    Args:
        pipeline: See `measure`.
        domains: Those that have to be in it.
        path: What `write_blocks` wrote.
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
    with writing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, [f.name for f in fields(Block)])
        rows.writeheader()
        rows.writerows(asdict(block) for block in blocks)


def read_blocks(path: Path) -> list[Block]:
    """Read what `write_blocks` wrote.

    Raises:
        UserError: if it is missing or of another kind.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [_block(**row) for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise UserError(f"there is no {path}; python -m benchmarks tuned --output makes it") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} does not compare tuned configurations ({error}); make it again") from error


def comparison(blocks: Sequence[Block]) -> list[str]:
    """A row per domain: default -> tuned, each ± two standard errors over the blocks, and the difference likewise.

    Args:
        blocks: Of any domains, of each at least two blocks; the same ones of both kinds.
    """
    rows = []
    for domain in dict.fromkeys(block.domain for block in blocks):
        some = [block for block in blocks if block.domain == domain]
        kinds = [found for kind in (DEFAULT, TUNED) if (found := [b for b in some if b.kind == kind])]
        cells = [_changed(kinds, metric) for metric in ("fd_encoder", "seconds")]
        evaluations = " → ".join(f"{np.mean([b.evaluations for b in kind]):g}" for kind in kinds)
        rows.append([domain, evaluations, *cells, f"{len(kinds[0])} x {kinds[0][0].pictures}"])
    header = ["default → tuned", "evaluations", "`fd_encoder`", "seconds per picture", "n"]
    return table(header, rows)


def main(argv: list[str]) -> None:
    """Measure domain after domain, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tuned", description=__doc__)
    parser.add_argument("--domains", nargs="+", default=list(DomainType), help="domains of the shipped model")
    parser.add_argument("--tuned", type=Path, help="file that train.py agent=... wrote; default: what ships")
    parser.add_argument("--pictures", type=int, default=264, help="pictures per block, four for each feature or more")
    parser.add_argument("--blocks", type=int, default=8, help="blocks of noises; the spread is that over them")
    parser.add_argument("--output", type=Path, help="CSV file of the blocks to write")
    options = parser.parse_args(argv)

    if options.tuned is not None:
        read_knowledge(options.tuned)  # an adapter would begin a file that is not there
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
    """What a block measures, and what with."""
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
    )


def _block(seed: str, pictures: str, evaluations: str, fd_encoder: str, seconds: str, **words: str) -> Block:
    """A row of the file."""
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
    """The mean and two standard errors, to the first digit of the latter."""
    error = 2 * standard_error(values)
    decimals = max(-math.floor(math.log10(error)), 0) if error > 0 else 6
    return f"{values.mean():{sign}.{decimals}f} ± {error:.{decimals}f}"
