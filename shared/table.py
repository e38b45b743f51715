"""A table for a terminal: plain text, aligned, as wide as its content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Shown in place of a missing value.
MISSING = "-"


@dataclass(frozen=True)
class Table:
    """A title, column names, and rows of text. Columns of numbers are aligned right, others left."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """The table as lines."""
        lines = [list(self.columns), *[list(row) for row in self.rows]]
        columns = list(zip(*lines, strict=True))
        widths = [max(len(cell) for cell in column) for column in columns]
        numeric = [all(_is_number(cell) for cell in column[1:]) for column in columns]
        rendered = [
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, numeric, strict=True)
            ).rstrip()
            for line in lines
        ]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join([self.title, rendered[0], rule, *rendered[1:]])


def number(value: float | None, digits: int) -> str:
    """``value`` with ``digits`` after the point; a dash for None."""
    return MISSING if value is None else f"{value:.{digits}f}"


def _is_number(cell: str) -> bool:
    if cell in ("", MISSING, "exact"):
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True
