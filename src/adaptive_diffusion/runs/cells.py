"""`adaptive-diffusion cells`: one report of all cells that benchmarks have kept, whenever they ran.

`--plots quality --output docs/benchmark` makes what the repository keeps.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..benchmark.cell import CellResult
from ..benchmark.report import PLOTS, write_report
from ..benchmark.store import load_cell
from ..errors import UserError
from ..io.counted import count
from ..program import command

SIZES = ("num_samples", "benchmark.seed_blocks", "batch_size")  # no part of a name in a report of one size


def main(argv: list[str]) -> None:
    """Read the cells of one size, take the newer one of two equal cells, and write the report."""
    parser = argparse.ArgumentParser(prog=command("cells"), description=__doc__)
    parser.add_argument("--cells", type=Path, default=Path("outputs/benchmark/cells"), help="folder of kept cells")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark/report"), help="folder of the report")
    parser.add_argument(
        "--model", help="beginning of the hash and guidance of the cells' models; default: one model, the commonest"
    )
    parser.add_argument("--images", type=int, help="images per block of the cells; default: the commonest size")
    parser.add_argument("--baseline", default="ddim uniform", help="cell that others are compared with")
    parser.add_argument("--plots", nargs="*", choices=list(PLOTS), default=list(PLOTS), help="kinds of plots")
    options = parser.parse_args(argv)

    paths = sorted(options.cells.glob("*.json"), key=lambda path: path.stat().st_mtime)  # the newest takes precedence
    cells = [cell for path in paths if (cell := load_cell(path)) is not None]
    if not cells:
        raise UserError(
            f"{options.cells} keeps no cells; run {command('sample')} -m experiment=benchmark, or give --cells"
        )

    of_model = _of_model(cells, options.model)
    if others := sum(cell.encoder != of_model[-1].encoder for cell in of_model):
        print(f"{count(others, 'cell')} measured by another encoder than the newest cell: left out")
        of_model = [cell for cell in of_model if cell.encoder == of_model[-1].encoder]
    sizes = Counter(map(_noises, of_model))
    asked = Counter({size: n for size, n in sizes.items() if options.images in (None, size[0])})
    if not asked:
        known = ", ".join(str(pictures) for pictures in sorted({pictures for pictures, *_ in sizes}))
        raise UserError(f"no cell has {options.images} images per block; there are cells of {known}")

    noises = pictures, *seeds = asked.most_common(1)[0][0]
    comparable = [_named(cell) for cell in of_model if _noises(cell) == noises]
    alike = [n for size, n in asked.items() if size[0] == pictures and len(size) == len(noises)]
    if others := sum(alike) - len(comparable):
        print(f"{count(others, 'cell')} of other seeds than {seeds[0]} to {seeds[-1]}: left out")
    cells = list({(cell.domain, cell.name, cell.model): cell for cell in comparable}.values())
    rows = write_report(options.output, cells, options.baseline, options.plots)
    print(f"{count(len(cells), 'cell')} of {count(pictures, 'image')} per block: {options.output / 'summary.md'}")
    if any(row.mean["rmse"] is not None for row in rows) and not any(row.baseline for row in rows):
        print(f"nothing was compared with the baseline {options.baseline!r}: that takes this cell and another")


def _of_model(cells: Sequence[CellResult], beginning: str | None) -> list[CellResult]:
    """The cells of the commonest model, or those of a network whose hash and guidance begin with something.

    Raises:
        UserError: if the beginning is that of no network, or of several.
    """
    models = Counter(cell.model for cell in cells)
    if beginning is None:
        return [cell for cell in cells if cell.model == models.most_common(1)[0][0]]

    networks = {model.partition(" ")[0] for model in models if model.startswith(beginning)}
    if not networks:
        raise UserError(f"no cell is of the model {beginning!r}; there are cells of {'; '.join(sorted(models))}")
    if len(networks) > 1:
        raise UserError(f"cells of {len(networks)} networks begin with {beginning!r}; give more digits of one's hash")
    return [cell for cell in cells if cell.model.startswith(beginning)]


def _noises(cell: CellResult) -> tuple[int, ...]:
    """What noises the images of a cell began with: images per block, and the seed of each block."""
    return (cell.pictures, *(block.seed for block in cell.blocks))


def _named(cell: CellResult) -> CellResult:
    """The cell, its name without sizes: some may have been given on the command line, and others by default."""
    return replace(cell, variant=tuple(v for v in cell.variant if v.partition("=")[0] not in SIZES))
