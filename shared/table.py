"""A table: plain text for a terminal, aligned and as wide as its content, or Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from shared.text import one_line

#: Shown in place of a missing value.
MISSING = "-"

_MEANS_SOMETHING = re.compile(r"[\\`*_\[\]<&|~@#]")


@dataclass(frozen=True)
class Table:
    """A title, column names, and rows of text. Columns of numbers are aligned right, others left."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """The table as lines."""
        lines = [list(self.columns), *[list(row) for row in self.rows]]
        widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
        numeric = self._numeric()
        rendered = [
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, numeric, strict=True)
            ).rstrip()
            for line in lines
        ]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join([self.title, rendered[0], rule, *rendered[1:]])

    def markdown(self) -> str:
        """The table below its title, in the Markdown of GitHub and GitLab."""
        rule = ["--:" if right else "---" for right in self._numeric()]
        lines = [map(as_markdown, self.columns), rule, *(map(as_markdown, row) for row in self.rows)]
        return "\n".join([f"### {as_markdown(self.title)}", "", *(f"| {' | '.join(line)} |" for line in lines)])

    def _numeric(self) -> list[bool]:
        """Which columns hold numbers alone."""
        return [all(_is_number(row[index]) for row in self.rows) for index in range(len(self.columns))]


def as_markdown(text: str) -> str:
    """``text`` in a line of Markdown, which shows it as it is: names in files must not become links or HTML."""
    return _MEANS_SOMETHING.sub(r"\\\g<0>", one_line(text))


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
