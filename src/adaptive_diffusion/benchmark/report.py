"""The benchmark's tables: every block, and every cell with its spread and its difference from a baseline."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..io.counted import count
from ..io.files import write_csv, write_text
from ..io.markdown import literal, table
from ..metrics.frechet import frechet_caveat
from .cell import CellResult
from .intervals import Interval, paired_bootstrap
from .plots import save_pareto_plot, save_quality_plot
from .rows import Row

METRICS = (  # of every block
    *("fd_encoder", "fd_vicreg", "precision", "recall", "domain_agreement"),
    *("fd_converged", "rmse", "perceptual", "evaluations", "passes", "seconds"),
)
TOGETHER = ("fd_encoder", "fd_vicreg", "precision", "recall", "fd_converged")  # of all images of a cell
COLUMNS = (  # of the Markdown tables
    *("method", "steps", "evaluations", "passes", "s/image"),
    *("fd real (all)", "fd real", "fd vicreg (all)", "fd vicreg", "precision (all)", "recall (all)", "of the domain"),
    *("fd converged (all)", "fd converged", "RMSE", "perceptual"),
    *("baseline", "RMSE - baseline", "perceptual - baseline"),
)
PLOTS = {"quality": save_quality_plot, "pareto": save_pareto_plot}


def write_report(
    folder: Path, results: Sequence[CellResult], baseline: str | None = None, plots: Collection[str] = tuple(PLOTS)
) -> list[Row]:
    """Write results.csv, summary.csv, summary.md and, for each domain, the plots.

    Args:
        folder: Where to; created.
        results: At least one cell.
        baseline: The cell to compare with: `<scheduler> <grid>` for the cell with the same number of steps, or
            `<scheduler> <grid> <steps>`; None: no comparison.
        plots: Some of `quality` (the leading methods against passes) and `pareto` (against seconds, which need a
            machine without other work).

    Returns:
        The rows of the summary, by domain, steps and method.

    Raises:
        ValueError: without results.
    """
    if not results:
        raise ValueError("a report needs the result of at least one cell")

    rows = summarise(results, baseline)
    _write_results(folder / "results.csv", [row.cell for row in rows])
    _write_summary(folder / "summary.csv", rows)
    write_text(folder / "summary.md", markdown(rows))

    for domain in dict.fromkeys(row.cell.domain for row in rows):
        some = [row for row in rows if row.cell.domain == domain]
        for kind in plots:
            PLOTS[kind](folder / f"{kind}_{domain}.png", some, domain)

    return rows


def short_hashes(text: str) -> str:
    """A text with each sha256 in it cut to 12 digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", text)


def summarise(results: Sequence[CellResult], baseline: str | None = None) -> list[Row]:
    """One row per cell, without the settings that all cells share; see `write_report`."""
    ordered = sorted(_without_what_all_share(results), key=lambda r: (r.domain, r.num_steps, r.method))
    by_name = {(r.domain, r.name): r for r in ordered}

    rows = []
    for cell in ordered:
        columns = {metric: _over_blocks(cell, metric) for metric in METRICS}
        mean = {metric: None if v is None else float(v.mean()) for metric, v in columns.items()}
        spread = {metric: None if v is None or len(v) < 2 else float(v.std(ddof=1)) for metric, v in columns.items()}

        # first the baseline of the same variant, then one of as many steps, then the cell of exactly this name
        steps = str(cell.num_steps)
        own = " ".join([baseline, *cell.variant, steps]) if baseline else ""
        names = (own, f"{baseline} {steps}", baseline) if baseline else ()
        other = next((by_name[cell.domain, name] for name in names if (cell.domain, name) in by_name), None)
        difference = {} if other is None or other is cell else _differences(cell, other)
        rows.append(Row(cell, mean, spread, other.name if other and difference else "", difference))

    return rows


def _without_what_all_share(results: Sequence[CellResult]) -> list[CellResult]:
    """The cells, with the settings that all cells share removed from their variants."""
    shared = set.intersection(*(set(cell.variant) for cell in results))
    return [replace(cell, variant=tuple(v for v in cell.variant if v not in shared)) for cell in results]


def markdown(rows: Sequence[Row]) -> str:
    """The summary as Markdown, one table per domain."""
    lines: list[str] = []
    for domain in dict.fromkeys(row.cell.domain for row in rows):
        some = [row for row in rows if row.cell.domain == domain]
        sizes = sorted({(len(row.cell.blocks), row.cell.pictures) for row in some})
        blocks = " or ".join(f"{count(n, 'block')} of {count(size, 'image')}" for n, size in sizes)
        totals = sorted({n * size for n, size in sizes})
        together = " or ".join(map(str, totals))
        dimensions = some[0].cell.dimensions

        lines += [
            f"## {domain}",
            "",
            f"n = {blocks}; mean +- sd over blocks; (all): of all {together} images together; differences: 95 % paired "
            "bootstrap.",
            "",
            *overview(some),
            "",
            *table(COLUMNS, map(_cells, some), "l" + 15 * "r" + "lrr"),
        ]
        if caveat := frechet_caveat(totals[0], dimensions):
            lines += ["", f"Frechet distances (all): {caveat}."]
        elif caveat := frechet_caveat(min(size for _, size in sizes), dimensions):
            lines += ["", f"Frechet distances of a block: {caveat}."]

        if not all(row.converged_enough for row in some):
            lines += [
                "",
                "*: doubling the converged solutions' steps changes them by more than a tenth of this RMSE; "
                "lower `benchmark.tolerance`.",
            ]

        lines.append("")

    return "\n".join(lines)


def overview(rows: Sequence[Row]) -> list[str]:
    """A Markdown table of one domain: a row per method, a column per number of steps, three metrics in a cell."""
    steps = sorted({row.cell.num_steps for row in rows})
    found = {(row.cell.method, row.cell.num_steps): row for row in rows}

    def cell(row: Row | None) -> str:
        if row is None:
            return ""
        perceptual = "" if row.mean["perceptual"] is None else f"{row.mean['perceptual']:.3f}"
        vicreg = "" if row.cell.fd_vicreg is None else f"{row.cell.fd_vicreg:.3g}"
        return f"{perceptual} / {row.cell.fd_encoder:.0f} / {vicreg}"

    methods = dict.fromkeys(row.cell.method for row in rows)
    body = [[literal(method), *(cell(found.get((method, n))) for n in steps)] for method in methods]
    return table(["perceptual / fd real (all) / fd vicreg (all), steps:", *map(str, steps)], body)


def _cells(row: Row) -> list[str]:
    cell, mark = row.cell, "" if row.converged_enough else "*"

    def value(metric: str) -> str:
        mean, spread = row.mean[metric], row.spread[metric]
        return "" if mean is None else f"{mean:.4g}" + ("" if spread is None else f" +- {spread:.2g}")

    def together(metric: str, digits: str = ".4g") -> str:
        number = getattr(cell, metric)
        return "" if number is None else f"{number:{digits}}"

    return [
        literal(cell.method),
        str(cell.num_steps),
        f"{row.mean['evaluations']:.4g}",
        "" if row.mean["passes"] is None else f"{row.mean['passes']:.4g}",
        f"{row.mean['seconds']:.3g}",
        together("fd_encoder"),
        value("fd_encoder"),
        together("fd_vicreg"),
        value("fd_vicreg"),
        together("precision", ".3f"),
        together("recall", ".3f"),
        value("domain_agreement"),
        together("fd_converged"),
        value("fd_converged"),
        value("rmse") + mark,
        value("perceptual"),
        literal(row.baseline),
        str(row.difference.get("rmse", "")),
        str(row.difference.get("perceptual", "")),
    ]


def _over_blocks(cell: CellResult, metric: str) -> np.ndarray | None:
    """(blocks,) a metric of each block, the mean over images where it is one per image; None without values."""
    values = [getattr(block, metric) for block in cell.blocks]
    return None if None in values else np.array([np.mean(value) for value in values])


def _differences(cell: CellResult, other: CellResult) -> dict[str, Interval]:
    """Differences between two cells, or {} if they did not start from the same noises."""
    found: dict[str, Interval] = {}
    if [b.seed for b in cell.blocks] != [b.seed for b in other.blocks]:
        return found

    for metric in ("rmse", "perceptual"):
        a, b = cell.paired(metric), other.paired(metric)
        if a is not None and b is not None and a.shape == b.shape:
            found[metric] = paired_bootstrap(a, b)
    return found


def _write_results(path: Path, cells: Sequence[CellResult]) -> None:
    lines: list[list[object]] = [["domain", "scheduler", "grid", "variant", "num_steps", "seed", "pictures", *METRICS]]
    for c in cells:
        columns = [_over_blocks(c, metric) for metric in METRICS]
        for i, block in enumerate(c.blocks):
            numbers = [_digits(None if column is None else float(column[i])) for column in columns]
            named = [c.domain, c.scheduler, c.grid, " ".join(c.variant), c.num_steps]
            lines.append([*named, block.seed, c.pictures, *numbers])
    write_csv(path, lines)


def _write_summary(path: Path, rows: Sequence[Row]) -> None:
    ends = ("mean", "low", "high")
    header: list[object] = ["domain", "scheduler", "grid", "variant", "num_steps", "blocks", "pictures_per_block"]
    header += [f"{metric}_{what}" for metric in METRICS for what in ("mean", "sd")]
    header += [*(f"{m}_all" for m in TOGETHER), "converged_steps", "converged_rmse", "converged_perceptual"]
    header += ["baseline", *(f"{metric}_difference_{end}" for metric in ("rmse", "perceptual") for end in ends)]
    header += ["model", "encoder", "calibration", "vicreg"]

    lines = [header]
    for row in rows:
        c = row.cell
        line = [c.domain, c.scheduler, c.grid, " ".join(c.variant), c.num_steps, len(c.blocks), c.pictures]
        line += [_digits(number) for metric in METRICS for number in (row.mean[metric], row.spread[metric])]
        line += [*(_digits(getattr(c, metric)) for metric in TOGETHER), c.converged_steps]
        line += [_digits(c.converged_rmse), _digits(c.converged_perceptual), row.baseline]

        for metric in ("rmse", "perceptual"):
            found = row.difference.get(metric)
            line += [None] * 3 if found is None else [_digits(getattr(found, end)) for end in ends]

        lines.append([*line, short_hashes(c.model), short_hashes(c.encoder), c.calibration, short_hashes(c.vicreg)])
    write_csv(path, lines)


def _digits(number: float | None) -> float | None:
    """Round to six digits, so that the files are small."""
    return None if number is None else float(f"{number:.6g}")
