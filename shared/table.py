"""A table for a terminal: plain text, aligned, as wide as its content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A title, column names, and rows of text.

    Attributes:
        title: what the table shows.
        columns: names of the columns; the first is aligned left, the others right.
        rows: one text per column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """The table as lines."""
        lines = [list(self.columns), *[list(row) for row in self.rows]]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.columns))]
        rendered = [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join([self.title, rendered[0], rule, *rendered[1:]])


def number(value: float | None, digits: int) -> str:
    """``value`` with ``digits`` after the point; a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"
