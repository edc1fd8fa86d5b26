"""What is said where MLflow refuses: by programs that have settings, and by commands that have none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import MachineError, UnusableFile, UserError

WITHOUT = "do without: tracking=none"


class StoreError(MachineError):
    """The place where runs are recorded refuses.

    Args:
        trouble: What is wrong, and what anyone can do.
        settings: What helps besides in a program that has settings.
    """

    def __init__(self, trouble: str, *settings: str):
        super().__init__(", or ".join([trouble, *settings]))
        self.trouble = trouble


@contextmanager
def without_settings() -> Iterator[None]:
    """Advise no settings in what is said of a database or server within the block, for commands that have none.

    Raises:
        MachineError: for a `StoreError`.
        UserError: for a database of another program.
    """
    try:
        yield
    except StoreError as error:
        raise MachineError(error.trouble) from error
    except UnusableFile as error:
        raise UserError(f"{error.trouble}; what sample and train print after `look` names theirs") from error
