"""The building blocks of a report. The template draws each kind of block; nothing here knows HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shared.table import MISSING, Table

#: Text that starts like a number; columns of it are right-aligned.
_NUMBER = re.compile(r"[-+]?\.?\d")


@dataclass(frozen=True)
class Cell:
    """A cell that is more than text.

    Attributes:
        text: its content.
        tone: ``good``, ``bad`` or ``muted``; empty for none.
        share: draws a bar of this share (0 to 1) behind the text.
        heat: shades the cell by this share (0 to 1).
        series: index of the bar's color.
    """

    text: str
    tone: str = ""
    share: float | None = None
    heat: float | None = None
    series: int = 0


@dataclass(frozen=True)
class Text:
    """A paragraph; ``tone`` as a cell's."""

    text: str
    tone: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Grid:
    """A table; the first column heads the rows.

    Attributes:
        title: its caption.
        columns: names of the columns.
        rows: text or cells, one per column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    kind: ClassVar[str] = "grid"

    def cells(self) -> list[list[Cell]]:
        """The rows, every cell a `Cell`."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]

    def numeric(self) -> list[bool]:
        """Per column, whether it holds numbers alone, without bars, which begin at the left."""
        columns = list(zip(*self.cells(), strict=True)) or [()] * len(self.columns)
        return [all(cell.share is None and _is_number(cell.text) for cell in column) for column in columns]


def _is_number(text: str) -> bool:
    return text in ("", MISSING, "exact") or _NUMBER.match(text) is not None


@dataclass(frozen=True)
class Chart:
    """A drawing.

    Attributes:
        title: what it shows.
        svg: the drawing, from `evaluator.report.svg`.
        note: a line below.
    """

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Charts:
    """Charts side by side as the width allows, with one legend.

    Attributes:
        charts: the charts.
        legend: per entry, the CSS classes of its line and what it stands for.
        title: above all of them.
    """

    charts: Sequence[Chart]
    legend: Sequence[tuple[str, str]] = ()
    title: str = ""
    kind: ClassVar[str] = "charts"


@dataclass(frozen=True)
class Picture:
    """A sample with layers that can be shown and hidden.

    Attributes:
        key: unique in the report; names the controls.
        title: which sample it is.
        svg: the picture; a layer is a group of class ``layer-<key>``.
        layers: per layer, its key and what it shows.
        views: per view, its name and the SVG's view box; the first is shown from the start.
        note: a line below.
    """

    key: str
    title: str
    svg: str
    layers: Sequence[tuple[str, str]] = ()
    views: Sequence[tuple[str, str]] = ()
    note: str = ""
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Explorer:
    """Frames to look through, one at a time, drawn by ``static/explorer.js``.

    Attributes:
        key: unique in the report.
        data: JSON values: what all frames share, and the frames.
    """

    key: str
    data: Mapping[str, Any]
    kind: ClassVar[str] = "explorer"

    def json(self) -> str:
        """The data as text that can stand in an HTML element."""
        return _json_in_html(self.data)


def _json_in_html(data: Mapping[str, Any]) -> str:
    """JSON in which no name can end the element that it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@dataclass(frozen=True)
class Graph:
    """A network as nodes and arrows, laid out and drawn by ``static/graph.js`` once somebody opens it.

    Attributes:
        key: unique in the report.
        title: its caption.
        data: JSON values: nodes, and edges between them.
    """

    key: str
    title: str
    data: Mapping[str, Any]
    kind: ClassVar[str] = "graph"

    def json(self) -> str:
        """The data, as `Explorer.json`."""
        return _json_in_html(self.data)


@dataclass(frozen=True)
class Details:
    """Blocks that readers can open; ``open``: shown from the start."""

    title: str
    blocks: Sequence[Block]
    open: bool = False
    kind: ClassVar[str] = "details"


@dataclass(frozen=True)
class Code:
    """Preformatted text."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Cards:
    """Headline facts: per card a name, a value, a line below, and a tone."""

    cards: Sequence[tuple[str, str, str, str]]
    kind: ClassVar[str] = "cards"


# Not `Text | ...`: this is evaluated when the module is imported, by Python 3.10 too.
Block = Text | Heading | Grid | Charts | Picture | Explorer | Graph | Details | Code | Cards


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        key: its anchor.
        title: its heading, also in the navigation.
        blocks: what is in it.
    """

    key: str
    title: str
    blocks: Sequence[Block] = field(default_factory=list)


def grid(table: Table) -> Grid:
    """A terminal's table as a block."""
    return Grid(table.title, table.columns, table.rows)


def verdict(passed: bool) -> Cell:
    """``passed`` or ``FAILED``, in its tone."""
    return Cell("passed", "good") if passed else Cell("FAILED", "bad")
