"""Numbers with their nouns."""

from __future__ import annotations


def count(n: float, noun: str) -> str:
    """A number with its noun, e.g. "1 pass", "2 passes", "1,000 images"."""
    return f"{n:,.10g} {noun if n == 1 else noun + ('es' if noun.endswith(('s', 'ch')) else 's')}"
