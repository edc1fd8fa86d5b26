"""What the two trainings with a state file share: going on from it, and saying how far they are."""

from __future__ import annotations

import logging
from typing import Any

from ..io.progress import Progress
from ..io.training_state import state_tag
from ..models.resumable import ResumableTrainer

log = logging.getLogger(__name__)


def resumed_tag(trainer: ResumableTrainer[Any]) -> dict[str, str] | None:
    """The tag of the recorded run that a training goes on with; None if the training begins."""
    return state_tag(trainer.config.state) if trainer.step else None


def announced_progress(trainer: ResumableTrainer[Any]) -> Progress:
    """Say where a training begins; its progress, in images."""
    c = trainer.config
    if trainer.finished:
        log.info("%s is finished: it has seen %d images; the result is written again", c.state, trainer.images)
        return Progress("", quiet=True)

    if trainer.step:
        log.info("going on from %s at %d of %d images", c.state, trainer.images, c.images)
    what = f"training in batches of {c.batch_size}"
    return Progress(what, c.images, unit="image", initial=trainer.images, announced=True)
