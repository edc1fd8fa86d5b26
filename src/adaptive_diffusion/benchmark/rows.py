"""A row of a benchmark's report."""

from __future__ import annotations

from dataclasses import dataclass

from .cell import CellResult
from .intervals import Interval

NOT_CONVERGED = 0.1  # from this share of a distance on, the doubling of the converged solution's steps is worth a mark


@dataclass(frozen=True)
class Row:
    """A cell in the summary.

    Attributes:
        cell: The cell.
        mean: Metric -> mean over the blocks, None where the cell has no such number.
        spread: Metric -> standard deviation over the blocks (n - 1), None likewise and for a single block.
        baseline: Name of the cell it is compared with, "" for none.
        difference: `rmse` and `perceptual` -> mean difference from the baseline's and its 95 % interval.
    """

    cell: CellResult
    mean: dict[str, float | None]
    spread: dict[str, float | None]
    baseline: str
    difference: dict[str, Interval]

    @property
    def converged_enough(self) -> bool:
        """Whether the converged solutions are an order nearer to converged than this cell is to them."""
        rmse, change = self.mean["rmse"], self.cell.converged_rmse
        return rmse is None or change is None or change <= NOT_CONVERGED * rmse
