"""`python -m adaptive_diffusion.benchmark`: one report of all cells that benchmarks have kept, whenever they ran."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from ..errors import UserError
from .report import write_report
from .store import kept


def main(argv: list[str]) -> None:
    """Read the cells, choose those of one model and one size, and write the report."""
    parser = argparse.ArgumentParser(prog="adaptive_diffusion.benchmark", description=__doc__)
    parser.add_argument("--cells", type=Path, default=Path("outputs/benchmark/cells"), help="folder of kept cells")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark/report"), help="folder of the report")
    parser.add_argument(
        "--model", default="", help="beginning of the model's hash and guidance; default: the commonest"
    )
    parser.add_argument("--pictures", type=int, help="pictures per block of the cells; default: the commonest size")
    parser.add_argument("--baseline", default="ddim uniform", help="cell that others are compared with")
    options = parser.parse_args(argv)
    cells = [cell for path in sorted(options.cells.glob("*.json")) if (cell := kept(path)) is not None]
    if not cells:
        raise UserError(
            f"{options.cells} keeps no cells; run python sample.py -m experiment=benchmark, or give --cells"
        )
    models = Counter(cell.model for cell in cells if cell.model.startswith(options.model))
    if not models:
        known = "; ".join(sorted({cell.model for cell in cells}))
        raise UserError(f"no cell is of the model {options.model!r}; there are cells of {known}")
    of_model = [cell for cell in cells if cell.model == models.most_common(1)[0][0]]
    sizes = Counter(cell.pictures for cell in of_model)
    pictures = options.pictures or sizes.most_common(1)[0][0]
    chosen = [cell for cell in of_model if cell.pictures == pictures]
    if not chosen:
        known = ", ".join(str(size) for size in sorted(sizes))
        raise UserError(f"no cell has {pictures} pictures per block; there are cells of {known}")
    write_report(options.output, chosen, options.baseline)
    print(f"{len(chosen)} cells of {pictures} pictures per block: {options.output / 'summary.md'}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
