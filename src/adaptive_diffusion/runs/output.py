"""What programs print and log for whoever started them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from .. import leaving
from ..tracking.tracker import Tracker

log = logging.getLogger(__name__)


def say(text: str) -> None:
    """Print a text; to nobody once whoever read our output has gone, as with `| head`. What is being done goes on."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        leaving.stop_talking()


def rows_text(rows: Mapping[str, object]) -> str:
    """A summary: each row begins with its name, in a column of 11 characters; further lines of a row stand below."""
    return "\n".join(f"{name:<11}{text}".replace("\n", f"\n{'':<11}") for name, text in rows.items())


def log_rows(rows: Mapping[str, object]) -> None:
    """Log a summary, see `rows_text`."""
    log.info("%s", rows_text(rows))


def look(tracker: Tracker, page: str | None) -> dict[str, str]:
    """The row of a summary that says how to look at a page of the tracker; {} without one."""
    lines = [line for line in (tracker.how_to_look(), page) if line]
    return {"look": "\n".join(lines)} if page else {}
