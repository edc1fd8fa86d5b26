"""What the two trainings with a state file share: going on from it, and saying how far they are."""

from __future__ import annotations

import logging
from typing import Protocol

from ..io.progress import Progress
from ..io.training_state import state_tag

log = logging.getLogger(__name__)


class Settings(Protocol):
    """The settings of a training that counts images."""

    @property
    def state(self) -> str: ...

    @property
    def images(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    def steps(self) -> int: ...


class StatefulTrainer(Protocol):
    """A trainer whose state is one file, which it has read if there is one."""

    step: int

    @property
    def config(self) -> Settings: ...

    @property
    def images(self) -> int: ...


def is_finished(trainer: StatefulTrainer) -> bool:
    """Whether there is nothing left to train."""
    return trainer.step == trainer.config.steps()


def resumed_tag(trainer: StatefulTrainer) -> dict[str, str] | None:
    """The tag of the recorded run that a training goes on with; None if the training begins."""
    return state_tag(trainer.config.state) if trainer.step else None


def announced_progress(trainer: StatefulTrainer) -> Progress:
    """Say where a training begins; its progress, in images."""
    c = trainer.config
    if is_finished(trainer):
        log.info("%s is finished: it has seen %d images; the result is written again", c.state, trainer.images)
        return Progress("", quiet=True)

    if trainer.step:
        log.info("going on from %s at %d of %d images", c.state, trainer.images, c.images)
    what = f"training in batches of {c.batch_size}"
    return Progress(what, c.images, unit="image", initial=trainer.images, announced=True)
