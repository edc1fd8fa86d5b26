"""What `AdaptiveScheduler` has seen of its runs, and what that is taken together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from .content import complexity_of


@dataclass
class History:
    """What was seen.

    Attributes:
        qualities: Estimates of the caller, numbers or (B,) arrays in [0, 1].
        complexities: Complexities that were estimated, in [0, 1].
        errors: (B,) errors of the checked steps of the current run.
        last_x0: (B, H, W, C) latest clean predictions of the current run.
    """

    qualities: list[Any] = field(default_factory=list)
    complexities: list[float] = field(default_factory=list)
    errors: list[mx.array] = field(default_factory=list)
    last_x0: mx.array | None = None

    def next_run(self) -> History:
        """The estimates, without what was seen of the run."""
        return History(self.qualities, self.complexities)

    def summary(self, threshold: float) -> dict[str, Any]:
        """The means that `AdaptiveScheduler.get_schedule_info` gives; waits for the arrays.

        Args:
            threshold: Error above which a step fell back to first order.
        """
        errors = np.concatenate([np.asarray(error) for error in self.errors]) if self.errors else None

        quality, source = None, None
        if self.qualities:
            quality, source = float(np.mean([np.mean(np.asarray(q)) for q in self.qualities])), "estimates"
        elif errors is not None:
            quality, source = max(0.0, 1 - float(errors.mean())), "solver agreement"

        complexity = None
        if self.complexities:
            complexity = float(np.mean(self.complexities))
        elif self.last_x0 is not None:
            complexity = complexity_of(self.last_x0)

        return {
            "avg_error": None if errors is None else float(errors.mean()),
            "first_order_fraction": None if errors is None else float((errors > threshold).mean()),
            "avg_quality": quality,
            "quality_source": source,
            "avg_complexity": complexity,
        }
