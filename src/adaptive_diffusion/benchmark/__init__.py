"""Comparison of sampling methods from the same noises: `run_benchmark` measures cells, `write_report` reports them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .cell import Bench as Bench
    from .cell import BlockResult as BlockResult
    from .cell import Cell as Cell
    from .cell import CellResult as CellResult
    from .intervals import Interval as Interval
    from .intervals import paired_bootstrap as paired_bootstrap
    from .report import write_report as write_report
    from .second_encoder import SecondEncoder as SecondEncoder
    from .store import run_benchmark as run_benchmark

_HOMES = {  # as the imports above say to type checkers
    **dict.fromkeys(("Bench", "BlockResult", "Cell", "CellResult"), "cell"),
    **dict.fromkeys(("Interval", "paired_bootstrap"), "intervals"),
    "SecondEncoder": "second_encoder",
    "run_benchmark": "store",
    "write_report": "report",
}

__all__ = [*_HOMES]
__getattr__, __dir__ = lazy(__name__, _HOMES)
