"""Which known name a misspelt one may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str]) -> str | None:
    """The known name closest to a misspelt one, if any is close."""
    known = list(known)
    return next(iter(same_end(given, known)), None) or closest(given, known)


def same_end(given: str, known: Iterable[str]) -> list[str]:
    """The known names whose last part is that of a name."""
    return [name for name in known if name.split(".")[-1] == given.split(".")[-1]]


def closest(given: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like another, whatever the case."""
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), lower, n=1, cutoff=0.6)
    return lower[close[0]] if close else None
