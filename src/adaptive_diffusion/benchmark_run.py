"""The benchmark as a sweep: what one job does, and what is said before the first and after the last."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from .baseline.checks import check_count, check_number
from .benchmark import Bench, Cell, CellResult, run_benchmark, write_report
from .benchmark.report import METRICS, markdown, summarise
from .benchmark.store import cell_path, keep, kept
from .errors import UserError
from .metrics.encoder import load_builtin_encoder
from .metrics.reference import load_reference
from .parts import Parts, build, prepare
from .provenance import choices, git_state, parameters
from .run import labels, method, progress_bar

log = logging.getLogger(__name__)

CELL = "cell.json"
LONGEST_TABLE = 40  # rows that are printed as well as written
TYPICAL_CONVERGED_STEPS = 32 + 64 + 128

# settings that make another cell of the same scheduler, grid and number of steps
VARIES = ("scheduler.", "grid.", "sampler", "guidance_scale", "label", "model")


def measure(cfg: DictConfig) -> float:
    """Measure one cell, or take what an earlier sweep measured; the result lies in the job's folder.

    Args:
        cfg: `conf/sample.yaml`, composed, with a `benchmark`.

    Returns:
        fd_encoder of all blocks' pictures.

    Raises:
        UserError: for a value that cannot be used.
        MachineError: if the disk or the database refuses.
    """
    parts = prepare(cfg)
    cfg = parts.cfg
    cell, bench = cell_of(parts), bench_of(parts)
    folder, store = Path(cfg.paths.run), Path(cfg.paths.outputs) / "benchmark" / "cells"
    result = kept(cell_path(store, cell, bench))
    if result is not None:
        log.info("%s %s: measured before", result.domain, result.name)
    else:
        result = _measure_and_record(parts, cell, bench, store)
    keep(folder / CELL, result)
    return result.fd_encoder


def _measure_and_record(parts: Parts, cell: Cell, bench: Bench, store: Path) -> CellResult:
    cfg, git = parts.cfg, git_state(parts.cfg.paths.root)
    batches = bench.seed_blocks * math.ceil(bench.pictures / bench.batch_size)
    tags = {"kind": "benchmark cell", **labels(cfg), **(git.tags if git else {})}
    name = cfg.name or f"{cell.domain} {cell.scheduler} {cell.grid_name} {cell.num_steps} steps"
    with parts.tracker.open(name, params=parameters(cfg), tags=tags) as run:
        with progress_bar(batches * cell.num_steps, "step") as bar:
            (result,) = run_benchmark([cell], bench, store, progress=lambda trace: bar.update())
        (row,) = summarise([result])
        names = {"evaluations": "sampling/evaluations_per_picture", "seconds": "time/per_picture_s"}
        means = {names.get(m, f"benchmark/{m}"): value for m in METRICS if (value := row.mean[m]) is not None}
        spreads = {f"benchmark/{m}_sd": value for m in METRICS if (value := row.spread[m]) is not None}
        together = {"benchmark/fd_encoder_all": result.fd_encoder, "benchmark/fd_converged_all": result.fd_converged}
        run.metrics({**means, **spreads, **{k: v for k, v in together.items() if v is not None}})
    log.info(
        "%s %s: %s", result.domain, result.name, ", ".join(f"{k.split('/')[-1]} {v:.4g}" for k, v in means.items())
    )
    return result


def cell_of(parts: Parts) -> Cell:
    """The cell that a configuration describes."""
    cfg, chosen = parts.cfg, choices()
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    settings = {group: OmegaConf.to_container(cfg[group], resolve=True) for group in ("scheduler", "grid", "sampler")}
    return Cell(
        domain=cfg.domain.name,
        condition=parts.condition,
        scheduler=method(cfg)[0],
        grid_name=chosen.get("grid", cfg.grid._target_.rpartition(".")[2]),
        num_steps=cfg.num_steps,
        sampler=parts.sampler,
        grid=parts.grid,
        variant=" ".join(sorted(o for o in overrides if o.startswith(VARIES))),
        settings=settings,
    )


def bench_of(parts: Parts) -> Bench:
    """What all cells of a configuration share.

    Raises:
        UserError: for a value out of range, or an encoder or reference statistics that are missing.
    """
    cfg = parts.cfg
    try:
        check_count("num_samples", cfg.num_samples, 2)
        check_count("benchmark.seed_blocks", cfg.benchmark.seed_blocks, 1)
        check_number("benchmark.tolerance", cfg.benchmark.tolerance, 0, above=True)
    except ValueError as error:
        raise UserError(str(error)) from None
    encoder = load_builtin_encoder()
    return Bench(
        model=parts.model,
        guidance_scale=cfg.guidance_scale,
        encoder=encoder,
        reference=lambda domain: load_reference(domain, encoder),
        pictures=cfg.num_samples,
        seed_blocks=cfg.benchmark.seed_blocks,
        seed=cfg.seed,
        batch_size=cfg.batch_size,
        tolerance=cfg.benchmark.tolerance,
        cache=Path(cfg.paths.outputs) / "benchmark" / "converged",
    )


class BenchmarkReport:
    """Tells the cost of a benchmark before it starts, and makes its tables and plots when it ends."""

    def begin(self, config: DictConfig) -> None:
        """Print the number of cells, evaluations and minutes."""
        print(cost(config), flush=True)

    def end(self, config: DictConfig) -> Path | None:
        """Write the report of the cells that were finished; its folder, or None without any."""
        sweep = Path(config.hydra.sweep.dir)
        results = [result for path in sorted(sweep.glob(f"*/{CELL}")) if (result := kept(path)) is not None]
        if not results:
            return None
        folder, baseline = sweep / "benchmark", config.benchmark.baseline
        rows = write_report(folder, without_shared_variants(results), baseline)
        if len(rows) <= LONGEST_TABLE:
            print(f"\n{markdown(rows)}")
        if baseline and not any(row.baseline for row in rows):
            print(f"no finished cell could be compared with the baseline {baseline!r}; is it part of the sweep?")
        print(f"{'saved':<11}{folder / 'summary.md'}", flush=True)
        return folder


def without_shared_variants(results: list[CellResult]) -> list[CellResult]:
    """The results, named only by what differs between them."""
    shared = set.intersection(*(set(result.variant.split()) for result in results))
    return [
        replace(result, variant=" ".join(word for word in result.variant.split() if word not in shared))
        for result in results
    ]


def cost(config: DictConfig) -> str:
    """What a sweep will take at most, by a forward pass that is timed."""
    axes = sweep_axes(config)
    steps = [int(n) for n in axes.pop("num_steps", [config.num_steps])]
    others = math.prod(len(values) for values in axes.values())
    pictures = config.num_samples * config.benchmark.seed_blocks
    evaluations = others * sum(steps) * pictures
    problems = math.prod(len(v) for k, v in axes.items() if k in ("domain", "label", "guidance_scale", "model"))
    converged = problems * TYPICAL_CONVERGED_STEPS * pictures
    rate = evaluations_per_second(config)
    return (
        f"{others * len(steps)} cells of {config.benchmark.seed_blocks} x {config.num_samples} pictures: at most "
        f"{evaluations:,} model evaluations, and some {converged:,} for the converged solutions: about "
        f"{(evaluations + converged) / rate / 60:.0f} minutes at {rate:.0f} evaluations/s as things are. Stop at any "
        "time: what is finished is kept and not repeated."
    )


def sweep_axes(config: DictConfig) -> dict[str, list[str]]:
    """The values of every setting of a sweep; those of the command line take precedence, as Hydra's sweeper has it."""
    given = [f"{key}={values}" for key, values in (config.hydra.sweeper.params or {}).items()]
    axes = {}
    for override in OverridesParser.create().parse_overrides([*given, *config.hydra.overrides.task]):
        many = override.is_sweep_override()
        axes[override.get_key_element()] = list(map(str, override.sweep_string_iterator())) if many else [""]
        if not many and override.key_or_group == "num_steps":
            axes["num_steps"] = [override.get_value_element_as_str()]
    return axes


def evaluations_per_second(config: DictConfig) -> float:
    """Guided evaluations of one picture per second, by one batch after one that warms up."""
    model: Any = build(config, "model")
    scale = model.metadata.get("guidance_scale", 1.0) if config.guidance_scale is None else config.guidance_scale
    batch, side = config.batch_size, model.config.image_size
    x = mx.zeros((batch * (1 if scale == 1 else 2), side, side, model.config.in_channels))
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        mx.eval(model(x, mx.full((len(x),), 500.0), None))
        seconds = time.perf_counter() - start
    return batch / seconds
