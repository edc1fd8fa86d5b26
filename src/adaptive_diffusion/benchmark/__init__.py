"""Comparison of sampling methods from the same noises: `run_benchmark` measures cells, `write_report` reports them."""

from .cell import Bench, BlockResult, Cell, CellResult, PairedEncoder
from .intervals import Interval, paired_bootstrap
from .report import write_report
from .second_encoder import SecondEncoder
from .store import run_benchmark

__all__ = [
    "Bench",
    "BlockResult",
    "Cell",
    "CellResult",
    "Interval",
    "PairedEncoder",
    "SecondEncoder",
    "paired_bootstrap",
    "run_benchmark",
    "write_report",
]
