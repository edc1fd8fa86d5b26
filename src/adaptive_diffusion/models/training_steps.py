"""What the steps of every training share: when something is due, the moving average's memory, a loss that diverged."""

from __future__ import annotations

import math
from pathlib import Path


def crossed(every: int, images: int, batch_size: int) -> bool:
    """Whether the last step, which ended at `images` images, crossed a multiple of `every` images."""
    return images // every != (images - batch_size) // every


def decay(step: int, most: float) -> float:
    """Decay of the moving average of the weights at a step, at most `most`.

    The average begins with a short memory, so that the random first weights do not stay in it.
    """
    return min(most, (1 + step) / (10 + step))


def check_loss(loss: float | dict[str, float], step: int, state: str | Path, smaller: str = "learning_rate") -> None:
    """Refuse the loss of a step, or its losses by name, if one is not finite.

    Raises:
        FloatingPointError: naming the last good state, and the settings that had better be `smaller`.
    """
    if not all(map(math.isfinite, loss.values() if isinstance(loss, dict) else [loss])):
        raise FloatingPointError(
            f"the loss became {loss} at step {step}; the last good state is in {state}: "
            f"start anew with a smaller {smaller}, and another state"
        )
