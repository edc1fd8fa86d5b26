"""Numbers with their nouns."""

from __future__ import annotations


def count(n: float, noun: str) -> str:
    """A number with its noun, e.g. "1 pass", "2 passes", "1,000 images"."""
    return f"{n:,.10g} {noun if n == 1 else noun + ('es' if noun.endswith(('s', 'ch')) else 's')}"


def speed(rate: float, noun: str) -> str:
    """A positive rate per second, e.g. "12.3 evaluations/s", or below one "40 s per evaluation"."""
    return f"{count(float(f'{rate:.3g}'), noun)}/s" if rate >= 1 else f"{1 / rate:.3g} s per {noun}"
