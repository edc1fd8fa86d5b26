"""UniPC: a multistep predictor whose steps are corrected by the next evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..diffusion.checks import check_choice, check_count
from ..diffusion.node import Node
from .base import Memory, Position, Step
from .unipc_weights import UNIPC_TYPES, unipc_weights


@dataclass(frozen=True)
class UniPC:
    """UniPC, multistep, with data prediction (Zhao et al., 2023).

    The predictor UniP leads to the next node. Once the model has been evaluated there, the corrector UniC takes the
    same step again with that prediction, which raises the order by one and costs no evaluation; the next step goes on
    from the corrected images. The last step is not corrected, since nothing is evaluated at its end.

    It remembers the clean predictions, newest first, and then the images that the latest step began from.

    Args:
        order: 1, 2 or 3: clean predictions that the predictor uses, as far as there are that many.
        kind: `bh1` or `bh2`: see `unipc_weights`.
        lower_order_final: Lower the order of the last two steps, to 1 at the end.

    Raises:
        ValueError: for a value out of range.
    """

    order: int = 2
    kind: str = "bh2"
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        check_count("solver_order", self.order, 1, 3)
        check_choice("solver_type", self.kind, UNIPC_TYPES)

    def step(self, at: Position, memory: Memory) -> Step:
        """See `Solver`."""
        *older, began = memory or (at.x_t,)
        x0s, known, x_t = (at.x0, *older), len(older), at.x_t

        if memory:  # take the step that led here again
            left = None if at.left is None else at.left + 1
            order = self._order(at.now, known, left)
            x_t = self._advance(at.trail[:-1], at.now, began, x0s, order, corrector=True)

        order = self._order(at.then, known + 1, at.left)
        mean = self._advance(at.trail, at.then, x_t, x0s, order, corrector=False)
        return Step(mean, 0.0, (*x0s[: self.order], x_t), order)

    def _order(self, then: Node, predictions: int, left: int | None) -> int:
        """The order of a step that was predicted from so many clean predictions, with so many steps left."""
        if then.clean:
            return 1
        order = min(self.order, predictions)
        return order if left is None or not self.lower_order_final else min(order, left)

    def _advance(
        self, trail: Sequence[Node], then: Node, x: mx.array, x0s: Sequence[mx.array], order: int, *, corrector: bool
    ) -> mx.array:
        """One step from the end of a trail; for UniC the first of the clean predictions is that at its target."""
        log_snrs = [node.log_snr for node in (*trail[-order:], then)]
        mean = (then.sigma / trail[-1].sigma) * x
        for weight, x0 in zip(unipc_weights(log_snrs, self.kind, corrector), x0s, strict=False):
            mean = mean + (then.alpha * weight) * x0
        return mean
