"""A row of a benchmark's report."""

from __future__ import annotations

from dataclasses import dataclass

from .cell import CellResult
from .intervals import Interval

NOT_CONVERGED = 0.1  # a converged solution that moves by more than this share of a cell's distance gets a mark


@dataclass(frozen=True)
class Row:
    """A cell in the summary.

    Attributes:
        cell: The cell.
        mean: Metric -> mean over the blocks, None where the cell has no such number.
        spread: Metric -> standard deviation over the blocks (n - 1), None without a mean and for a single block.
        baseline: Name of the cell that it is compared with, or "".
        difference: `rmse` and `perceptual` -> mean difference from the baseline's and its 95 % interval.
    """

    cell: CellResult
    mean: dict[str, float | None]
    spread: dict[str, float | None]
    baseline: str
    difference: dict[str, Interval]

    @property
    def converged_enough(self) -> bool:
        """Whether the converged solutions are exact to a tenth of this cell's distance to them."""
        rmse, change = self.mean["rmse"], self.cell.converged_rmse
        return rmse is None or change is None or change <= NOT_CONVERGED * rmse
