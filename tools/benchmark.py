"""Whether the benchmark's summary fits the shipped assets, and the commands that measure it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adaptive_diffusion.benchmark.measure import steps_digest
from adaptive_diffusion.benchmark.report import short_hashes
from adaptive_diffusion.diffusion.guidance import identity_of
from adaptive_diffusion.encoder.encoder import BUILTIN_ENCODER, load_encoder
from adaptive_diffusion.grids.calibrated import merged
from adaptive_diffusion.grids.schedule_file import SHIPPED, load_schedules
from adaptive_diffusion.models.checkpoint import BUILTIN_MODEL, load_model
from tools.benchmark_tables import ADAPTIVE, DOMAINS, GRIDS, SCHEDULERS, Measured, rank, read_summary

SUMMARY = "docs/benchmark/summary.csv"
REPORT = "adaptive-diffusion cells {}--plots quality --output docs/benchmark"  # makes it of the cells that are kept


def stale_benchmark(summary: Path, schedules: Path = SHIPPED) -> str | None:
    """Why a summary does not fit the shipped model, encoder and calibrated steps, or None."""
    model, encoder = load_model(BUILTIN_MODEL), load_encoder(BUILTIN_ENCODER)
    guidance = float(model.metadata["guidance_scale"])
    shipped = {
        "model": short_hashes(identity_of(model, guidance)),
        "encoder": short_hashes(f"{encoder.name} {encoder.content_hash}"),
    }
    rows, found = read_summary(summary), merged(load_schedules(schedules))

    # summaries cut hashes short, so the shipped names are cut as well
    for what, name in shipped.items():
        if others := sorted({getattr(row, what) for row in rows} - {name}):
            return f"it was measured with the {what} {', '.join(other or 'unknown' for other in others)}, not {name}"

    known = {s.domain: s for s in found if (s.model, s.guidance_scale) == (model.identity, guidance)}
    anew = [
        f"{row.domain} {row.num_steps}"
        for row in rows
        if row.method == ADAPTIVE and row.calibration != steps_digest(known.get(row.domain), row.num_steps)
    ]
    return f"adaptive has other calibrated steps now: {', '.join(anew)}" if anew else None


def commands(rows: Sequence[Measured], experiment: str = "benchmark", report: str = REPORT) -> list[str]:
    """Commands that measure exactly the cells of a summary and make its files.

    Args:
        rows: The cells.
        experiment: The configuration that they are measured with.
        report: Command that makes the files, with a place for the number of images.
    """
    settings = sorted({(row.pictures, row.blocks, row.method[2]) for row in rows})

    lines = []
    for pictures, blocks, variant in settings:
        some = [row for row in rows if (row.pictures, row.blocks, row.method[2]) == (pictures, blocks, variant)]
        for domains, steps, grids, schedulers in _products(some):
            where = "" if set(domains) == set(DOMAINS) else f"domain={','.join(domains)} "
            lines.append(
                f"python sample.py -m experiment={experiment} scheduler={','.join(schedulers)} grid={','.join(grids)} "
                f"num_steps={','.join(steps)} {where}num_samples={pictures} benchmark.seed_blocks={blocks} "
                f"{variant}".rstrip()
            )

    return [
        *lines,
        *(report.format(f"--images {pictures} ") for pictures in sorted({pictures for pictures, _, _ in settings})),
    ]


def _products(rows: Sequence[Measured]) -> list[tuple[tuple[str, ...], ...]]:
    """The cells as few products of domains, steps, grids and schedulers, in the order of the tables."""
    orders = (DOMAINS, [str(n) for n in sorted({row.num_steps for row in rows})], GRIDS, SCHEDULERS)
    cells: list[tuple[tuple[str, ...], ...]] = [
        ((row.domain,), (str(row.num_steps),), (row.method[1],), (row.method[0],)) for row in rows
    ]

    # along one axis after the other, join the cells that differ in it alone
    for axis, order in enumerate(orders):
        groups: dict[tuple[tuple[str, ...], ...], set[str]] = {}
        for cell in cells:
            groups.setdefault(cell[:axis] + cell[axis + 1 :], set()).update(cell[axis])

        cells = [
            (*rest[:axis], tuple(sorted(values, key=lambda name: rank(name, order))), *rest[axis:])
            for rest, values in groups.items()
        ]

    return sorted(cells, key=lambda cell: [rank(name, SCHEDULERS) for name in cell[-1]])
