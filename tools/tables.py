"""`python -m tools.tables`: make the tables of README and docs from the files with their numbers.

A table stands between two comments, `<!-- table: NAME; made from FILE sha256 ... -->` and `<!-- end of table -->`. The
lines between them are written anew.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adaptive_diffusion.errors import UserError
from adaptive_diffusion.grids.calibrated import merged
from adaptive_diffusion.grids.schedule_file import load_schedules
from adaptive_diffusion.io.files import write_text
from adaptive_diffusion.leaving import run_program
from adaptive_diffusion.models.checkpoint import BUILTIN_MODEL, load_model
from adaptive_diffusion.optimization.memory import read_records
from tools import real_tables
from tools.asset_tables import calibrated_steps, tuned_configurations
from tools.benchmark import SUMMARY, commands
from tools.benchmark_tables import comparison, fewest_steps, read_summary, results, times_nearer

PROJECT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    *(f"docs/evidence/{page}.md" for page in ("results", "real_images", "real_images_all", "calibration", "tuned")),
)
SCHEDULES = "src/adaptive_diffusion/assets/schedules.json"
REAL = "docs/real_images/summary.csv"
BESIDE_REAL = "docs/real_images/real.csv"  # as many real images
TUNED = "src/adaptive_diffusion/assets/tuned.json"

BLOCK = re.compile(r"<!-- table: (?P<name>[^;>]+)(?:;[^>]*)?-->\n(?P<lines>.*?)<!-- end of table -->", re.DOTALL)
BEGIN, END = "<!-- table:", "<!-- end of table -->"


@dataclass(frozen=True)
class Table:
    """The source of a block of a page.

    Attributes:
        source: The file with the numbers, relative to the project's folder.
        make: Path of the file -> lines of the block.
    """

    source: str
    make: Callable[[Path], list[str]]


def main(argv: list[str]) -> int:
    """Write the tables, or say which are stale."""
    parser = argparse.ArgumentParser(prog="python -m tools.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say what is stale; exit code 1 if anything is")
    options = parser.parse_args(argv)
    reason = stale_tables()
    print(f"{'tables':<28}{'up to date' if reason is None else 'stale: ' + reason}")

    if reason is not None and not options.check:
        write_tables()
    return 1 if reason is not None and options.check else 0


def stale_tables(project: Path = PROJECT) -> str | None:
    """The tables that differ from their sources, or None."""
    found = {block["name"].strip(): block[0] for text in _read(project).values() for block in BLOCK.finditer(text)}
    stale = [name for name, block in found.items() if block != _block(name, project)]
    return ", ".join(stale) or None


def write_tables(project: Path = PROJECT) -> None:
    """Make every table again.

    Raises:
        UserError: for a table without a maker, or without a usable source.
    """
    for page, text in _read(project).items():
        write_text(page, BLOCK.sub(lambda block: _block(block["name"].strip(), project), text))


def _read(project: Path) -> dict[Path, str]:
    """The texts of the pages that exist."""
    pages = {page: page.read_text(encoding="utf-8") for name in PAGES if (page := project / name).is_file()}
    for page, text in pages.items():
        if not len(list(BLOCK.finditer(text))) == text.count(BEGIN) == text.count(END):
            raise UserError(f"{page} has a table without end; begin it {BEGIN} NAME --> and end it {END}")
    return pages


def _block(name: str, project: Path) -> str:
    if name not in TABLES:
        raise UserError(f"nothing makes the table {name!r}; there are {', '.join(TABLES)}")

    table = TABLES[name]
    source = project / table.source
    stamp = f"sha256 {hashlib.sha256(source.read_bytes()).hexdigest()[:12]}" if source.is_file() else "once it is there"
    lines = table.make(source)
    body = ["", *lines, ""] if lines else []
    return "\n".join([f"{BEGIN} {name}; made from {table.source} {stamp} -->", *body, END])


def _commands(path: Path) -> list[str]:
    return ["```bash", *commands(read_summary(path)), "```"]


def _real_commands(path: Path) -> list[str]:
    if not path.is_file():
        return []
    rows = read_summary(path)
    (network,) = {row.model.partition(" ")[0] for row in rows}
    report = f"adaptive-diffusion cells --model {network} {{}}--plots --output {Path(REAL).parent}"
    return ["```bash", *commands(rows, "benchmark_real", report), "```"]


def _calibrated(path: Path) -> list[str]:
    identity, _ = _shipped()
    return calibrated_steps([s for s in merged(load_schedules(path)) if s.model == identity])


def _tuned(path: Path) -> list[str]:
    if not path.is_file():
        return []

    identity, guidance = _shipped()
    own = [r for r in read_records(path).known if (r.model, r.guidance_scale) == (identity, guidance)]
    return tuned_configurations(own)


def _shipped() -> tuple[str, float]:
    """The shipped model's identity and its guidance."""
    model = load_model(BUILTIN_MODEL)
    return model.identity, float(model.metadata["guidance_scale"])


TABLES = {
    "benchmark": Table(SUMMARY, lambda path: results(read_summary(path))),
    "benchmark commands": Table(SUMMARY, _commands),
    "adaptive against the others": Table(SUMMARY, lambda path: comparison(read_summary(path))),
    "times nearer": Table(SUMMARY, lambda path: times_nearer(read_summary(path))),
    "fewest adaptive steps": Table(SUMMARY, lambda path: fewest_steps(read_summary(path))),
    "calibrated steps": Table(SCHEDULES, _calibrated),
    "real images": Table(REAL, real_tables.all_rows),
    "real images, differences": Table(REAL, real_tables.differences),
    "real images, against others": Table(REAL, real_tables.against_others),
    "real images, commands": Table(REAL, _real_commands),
    "real images, headline": Table(REAL, real_tables.headline),
    "real images in short": Table(REAL, real_tables.short),
    "real images side by side": Table(REAL, real_tables.front),
    "real images beside real images": Table(BESIDE_REAL, real_tables.beside_real),
    "tuned configurations": Table(TUNED, _tuned),
}


if __name__ == "__main__":
    run_program(main)
