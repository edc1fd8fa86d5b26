"""Comparison of sampling methods from the same noises: `run_benchmark` measures cells, `write_report` reports them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .cell import Bench, BlockResult, Cell, CellResult
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
    "SecondEncoder",
    "paired_bootstrap",
    "run_benchmark",
    "write_report",
]

_HOMES = {  # as the imports above say to type checkers
    **dict.fromkeys(("Bench", "BlockResult", "Cell", "CellResult"), "cell"),
    **dict.fromkeys(("Interval", "paired_bootstrap"), "intervals"),
    "SecondEncoder": "second_encoder",
    "run_benchmark": "store",
    "write_report": "report",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
