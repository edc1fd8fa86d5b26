"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MINUS, MISSING = "\N{MINUS SIGN}", "\N{EN DASH}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> list[str]:
    """The lines of a Markdown table.

    Args:
        header: Names of the columns.
        rows: As many cells in each.
        align: `l` or `r` for each column; by default the first is left, the rest are right.

    Raises:
        ValueError: for a row of another length.
    """
    align = align or "l" + "r" * (len(header) - 1)
    lines = [row_of(header), "|" + "|".join("---" if a == "l" else "---:" for a in align) + "|"]

    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row needs {len(header)} cells, got {len(row)}: {row}")

        lines.append(row_of(row))

    return lines


def literal(text: str) -> str:
    """A text of a user's, as it is shown in a cell or a heading: neither a border nor HTML, in one line."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def row_of(cells: Sequence[str]) -> str:
    """One row of a table."""
    return f"| {' | '.join(cells)} |"
