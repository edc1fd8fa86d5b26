"""The benchmark as a sweep: what one job does, and what is said before the first and after the last."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..benchmark.cell import Bench, Cell, CellResult
from ..benchmark.measure import measure_cell
from ..benchmark.report import METRICS, TOGETHER, markdown, summarise, write_report
from ..benchmark.second_encoder import SecondEncoder
from ..benchmark.store import cell_path, kept_cell, load_cell, save_cell
from ..diffusion.checks import check_count, check_number, check_seed
from ..encoder.domain import DomainDetector
from ..encoder.encoder import load_builtin_encoder
from ..encoder.reference import load_reference, load_vicreg_reference, vicreg_paths
from ..encoder.vicreg import load_builtin_vicreg
from ..errors import UserError
from ..io.addresses import without_login
from ..io.counted import count
from ..io.locks import in_turn
from ..io.progress import Progress
from ..program import again
from ..tracking.jobs import DONE, Job, telling
from ..tracking.provenance import choices, code_of_others, parameters, placeless
from .inputs import model_input
from .job import in_sweep
from .measure_run import SECONDS_PER_IMAGE
from .naming import drawn_by
from .open_settings import image_channels
from .output import log_rows, rows_text, say
from .recorded import run_tags
from .settings_text import given_settings, resolved_settings
from .setup import Setup, prepare
from .sweep_cost import announce

log = logging.getLogger(__name__)

CELL = "cell.json"
LONGEST_TABLE = 40  # rows that are printed as well as written

NAMES = {  # of a benchmark's numbers, as every run is recorded with them
    "perceptual": "quality/perceptual_encoder",
    "evaluations": "sampling/nfe",
    "passes": "sampling/passes",
    "seconds": SECONDS_PER_IMAGE,
}

# overrides that have a column of their own, or do not make another cell; all others that say what a job does are part
# of a cell's name
NO_VARIANT = (
    *("domain", "scheduler", "grid", "num_steps"),
    *("experiment", "benchmark", "benchmark.baseline", "metrics", "name", "tags"),
)

GROUPS = ("scheduler", "grid", "sampler")  # whose settings make another cell

# settings that a benchmark does not use, and what it does instead
NO_EFFECT = {
    "image_size": "images are measured at the size that the model draws",
    "metrics": "what is measured is always the same",
    "skip_finished": "what is finished is never repeated",
}


def run_cell(cfg: DictConfig) -> float:
    """Measure one cell, or take what an earlier sweep measured; the result lies in the job's folder.

    Args:
        cfg: `conf/sample.yaml`, composed, with a `benchmark`.

    Returns:
        fd_encoder of all blocks' images.

    Raises:
        UserError: for a value that cannot be used.
        MachineError: if the disk or the database refuses.
    """
    refuse_without_effect(resolved_settings())

    setup = prepare(cfg)
    cfg = setup.cfg
    if (channels := image_channels(setup.model)) != 3:
        raise UserError(f"a benchmark compares RGB images, and this model draws images of {channels} channel(s)")

    cell, bench = cell_of(setup), bench_of(setup)
    path = cell_path(Path(cfg.paths.outputs) / "benchmark" / "cells", cell, bench)

    result = kept_cell(path, cell)
    if result is None:  # what is measured needs no lock: the folder may be one to read only
        with in_turn(path, lambda who: log.info("waiting for the same by %s", who)):
            result = kept_cell(path, cell)
            if result is None:
                return _measure_and_record(setup, cell, bench, path).fd_encoder

    log.info("%s %s: measured before", result.domain, result.name)
    save_cell(Path(cfg.paths.run) / CELL, result)
    return result.fd_encoder


def _measure_and_record(setup: Setup, cell: Cell, bench: Bench, path: Path) -> CellResult:
    """Measure a cell and keep it in the file that belongs to it, and in a run."""
    cfg = setup.cfg
    batches = bench.seed_blocks * math.ceil(bench.pictures / bench.batch_size)
    tags = {"kind": "benchmark cell", **run_tags(cfg)}
    name = cfg.name or f"{cell.domain} {cell.scheduler} {cell.grid_name} {count(cell.num_steps, 'step')}"

    with setup.tracker.open(name, params=parameters(cfg), tags=tags, folder=cfg.paths.run) as run:
        run.inputs(*model_input(cfg.model, setup.model))
        try:
            with Progress(name, batches * cell.num_steps) as shown:
                result = measure_cell(cell, bench, progress=lambda trace: shown.update())
            save_cell(path, result)
        except KeyboardInterrupt:
            if not in_sweep():  # a sweep says it of all its cells
                log_rows({"go on": f"{without_login(again())} (the cell begins anew)"})
            raise

        # Of all images together where that is known, else the mean over the blocks; cell.json has all of it.
        (row,) = summarise([result])
        together = {m: value for m in TOGETHER if (value := getattr(result, m)) is not None}
        numbers = {m: value for m in METRICS if (value := {**row.mean, **together}[m]) is not None}
        run.metrics({NAMES.get(m, f"quality/{m}"): value for m, value in numbers.items()})
        save_cell(Path(cfg.paths.run) / CELL, result)
        run.keep(cfg.paths.run)

    said = ", ".join(f"{m} {value:.4g}" for m, value in row.mean.items() if value is not None)
    log.info("%s %s: %s", result.domain, result.name, said)
    return result


def cell_of(setup: Setup) -> Cell:
    """The cell that a configuration describes."""
    cfg = setup.cfg
    settings: dict[str, Any] = {group: OmegaConf.to_container(cfg[group], resolve=True) for group in GROUPS}
    if code := code_of_others(cfg):  # that of this package has `CACHE_VERSION`
        settings["code"] = code
    return Cell(
        domain=cfg.domain.name,
        conditions=setup.conditions,
        scheduler=drawn_by(cfg)[0],
        grid_name=choices().get("grid", cfg.grid._target_.rpartition(".")[2]),
        num_steps=cfg.num_steps,
        sampler=setup.sampler,
        grid=setup.grid,
        variant=variant_of(resolved_settings()),
        settings=placeless(settings, cfg),
    )


def variant_of(overrides: Iterable[str]) -> tuple[str, ...]:
    """The overrides that name a cell, in one order: a choice comes before what is set in it, e.g. guidance=interval."""
    named = [o for o in telling(overrides) if _key(o) not in NO_VARIANT]
    return tuple(sorted(named, key=lambda override: (_key(override).split("."), override)))


def refuse_without_effect(overrides: Iterable[str]) -> None:
    """Refuse settings of the command line that would do nothing; `metrics=none` is what the benchmark itself sets.

    Raises:
        UserError: naming the first of them.
    """
    for override in overrides:
        reason = NO_EFFECT.get(_key(override).partition(".")[0])
        if reason and override != "metrics=none":
            raise UserError(f"{override} has no effect on a benchmark: {reason}; leave it out")


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def bench_of(setup: Setup) -> Bench:
    """What all cells of a configuration share.

    Raises:
        UserError: for a value out of range, or an encoder or reference statistics that are missing.
    """
    cfg = setup.cfg
    try:
        check_count("num_samples", cfg.num_samples, 2)
        blocks = check_count("benchmark.seed_blocks", cfg.benchmark.seed_blocks, 1)
        check_seed("the seed of the last block", cfg.seed + blocks - 1)
        if cfg.benchmark.tolerance is not None:
            check_number("benchmark.tolerance", cfg.benchmark.tolerance, 0, above=True)
    except ValueError as error:
        raise UserError(str(error)) from None

    encoder = load_builtin_encoder()
    return Bench(
        model=setup.model,
        guidance_scale=setup.denoiser.guidance_scale,
        encoder=encoder,
        reference=lambda domain: load_reference(domain, encoder),
        pictures=cfg.num_samples,
        seed_blocks=blocks,
        seed=cfg.seed,
        batch_size=cfg.batch_size,
        tolerance=cfg.benchmark.tolerance,
        cache=Path(cfg.paths.outputs) / "benchmark" / "converged",
        second_encoder=_second_encoder,
        detector=DomainDetector(encoder),
    )


def _second_encoder(domain: str) -> SecondEncoder | None:
    if not all(path.is_file() for path in vicreg_paths(domain)):
        return None
    vicreg = load_builtin_vicreg()
    return SecondEncoder(vicreg, *load_vicreg_reference(domain, vicreg))


class BenchmarkReport:
    """Prints the cost of a benchmark before it starts, and makes its tables and plots when it ends."""

    def begin(self, config: DictConfig) -> None:
        """Print the number of cells, evaluations and minutes.

        Raises:
            UserError: for a setting that has no effect.
        """
        refuse_without_effect(given_settings(config))
        blocks, converged = config.benchmark.seed_blocks, config.benchmark.tolerance is not None
        announce(config, "cell", blocks=blocks, converged=converged)

    def end(self, config: DictConfig, jobs: Sequence[Job]) -> Sequence[Path]:
        """Write the report of the cells that were finished into a folder; () without any."""
        sweep = Path(config.hydra.sweep.dir)
        kept = [Path(job.folder) / CELL for job in jobs if job.status in DONE and job.folder]
        results = [result for path in kept if (result := load_cell(path)) is not None]
        if not results:
            return ()

        folder, baseline = sweep / "benchmark", config.benchmark.baseline
        rows = write_report(folder, results, baseline)
        if len(rows) <= LONGEST_TABLE:
            say(f"\n{markdown(rows)}")
        if baseline and not any(row.baseline for row in rows):
            say(f"nothing was compared with the baseline {baseline!r}: that takes this cell and another in the sweep")
        say(rows_text({"saved": folder / "summary.md"}))
        return (folder,)
