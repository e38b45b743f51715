"""Charts as inline SVG: small, crisp at any size, colored by the page's style sheet (classes ``s0``, ``s1``, ...).

A chart is as wide as a phone, so that its letters have the size of the text around it; wide screens show several side
by side. Not drawn by matplotlib: its SVG of the same curve has 14 to 22 kB instead of 3, and colors that the page's
light and dark styles don't reach.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 220
#: Colors in the style sheet: classes s0, s1, ...
SERIES = 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 18, 10, 38
# Height of a title above a chart in a file of its own.
_TITLE = 18
# A range smaller than this, relative to its values (or to 1), gives no distinguishable ticks.
_NARROWEST = 1e-6
# About how many ticks fit on an axis.
_TICKS = 5
# Of a file of its own: what page.css says, for light backgrounds.
_STYLE = (
    "text{font:11px sans-serif;fill:#57606a}.grid{stroke:#d5d9df}.line{fill:none;stroke:var(--ink);stroke-width:1.8}"
    ".area{fill:var(--ink)}.s0{--ink:#0969da}.s1{--ink:#c2410c}.s2{--ink:#1a7f37}.s3{--ink:#8250df}"
    ".s4{--ink:#9a6700}.s5{--ink:#bf3989}.s6{--ink:#0e7490}.s7{--ink:#6e7781}"
    ".name{fill:var(--ink)}line.mark{stroke:#b3141e;stroke-dasharray:3 3}text.mark{fill:#b3141e}"
)


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        title: quantity and unit; a vertical axis may have none.
        low, high: its ends.
        ticks: per tick, its place and its label.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """A line through points (x, y), drawn in the CSS classes ``style``; ``dots`` marks each point."""

    points: Sequence[tuple[float, float]]
    style: str
    dots: bool = False


def linear_axis(title: str, low: float, high: float) -> Axis:
    """An axis from ``low`` to ``high`` or a little further, with round ticks."""
    if not high - low > _NARROWEST * max(1.0, abs(low), abs(high)):
        high = low + 1.0
    step = _round_step((high - low) / _TICKS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = [(index * step, f"{index * step:.{decimals}f}") for index in range(first, last + 1)]
    return Axis(title, first * step, last * step, ticks)


def _round_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not below ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def line_chart(label: str, lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """Lines over two axes; ``label`` describes it for screen readers."""
    body = [_frame(x, y)]
    for line in lines:
        places = [(_x(x, px), _y(y, py)) for px, py in line.points]
        points = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
        body.append(f'<polyline class="line {line.style}" points="{points}"/>')
        if line.dots:
            body += [
                f'<circle class="area {line.style}" cx="{left:.1f}" cy="{top:.1f}" r="3"/>' for left, top in places
            ]
    return _svg(label, body)


def bar_chart(label: str, bars: Sequence[tuple[float, float, float]], x: Axis, y: Axis, style: str = "s0") -> str:
    """Bars (from, to, height) over two axes, as in a histogram."""
    body = [_frame(x, y)]
    for low, high, value in bars:
        left, right, top = _x(x, low), _x(x, high), _y(y, value)
        width = max(0.8, right - left - 0.6)
        body.append(
            f'<rect class="area {style}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{_y(y, y.low) - top:.1f}"/>'
        )
    return _svg(label, body)


def mark(svg: str, x: Axis, value: float, text: str, *, below: bool = False) -> str:
    """``svg`` with a vertical line at ``value``, named at its top or ``below``; unchanged where the axis ends."""
    if not x.low <= value <= x.high:
        return svg
    place = _x(x, value)
    right_of_middle = place > WIDTH / 2
    anchor, shift = ("end", -4) if right_of_middle else ("start", 4)
    line = f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
    height = HEIGHT - _BOTTOM - 6 if below else _TOP + 11
    name = f'<text class="mark" x="{place + shift:.1f}" y="{height}" text-anchor="{anchor}">{html.escape(text)}</text>'
    return svg.replace("</svg>", f"{line}{name}</svg>")


def counts(svg: str, x: Axis, numbers: Sequence[tuple[float, int]]) -> str:
    """``svg`` with how many samples stand behind places on the x axis, upright above it."""
    foot = HEIGHT - _BOTTOM - 4
    texts = [
        f'<text transform="translate({_x(x, place) + 4:.1f} {foot}) rotate(-90)">{count}</text>'
        for place, count in numbers
    ]
    return svg.replace("</svg>", f"{''.join(texts)}</svg>")


def texts(svg: str, x: Axis, y: Axis, names: Sequence[tuple[float, float, str]]) -> str:
    """``svg`` with a word beside each of some points (x, y, word)."""
    words = [
        f'<text x="{_x(x, px) + 5:.1f}" y="{_y(y, py) - 5:.1f}">{html.escape(word)}</text>' for px, py, word in names
    ]
    return svg.replace("</svg>", f"{''.join(words)}</svg>")


def standalone(svgs: Sequence[str], titles: Sequence[str] = (), legend: Sequence[tuple[str, str]] = ()) -> str:
    """Charts below one another as a file of its own, with the colors that the page's style sheet gives them.

    Args:
        svgs: the charts.
        titles: one above each; none: they have none.
        legend: CSS class and name of each line, behind every title.
    """
    names = "".join(f'<tspan class="name {style}" dx="8">{html.escape(name)}</tspan>' for style, name in legend)
    room = _TITLE if titles else 0
    height = (HEIGHT + room) * len(svgs)
    placed = [
        svg.replace("<svg ", f'<svg y="{(HEIGHT + room) * index + room}" width="{WIDTH}" height="{HEIGHT}" ', 1)
        for index, svg in enumerate(svgs)
    ]
    placed += [
        f'<text x="{_LEFT}" y="{(HEIGHT + room) * index + room - 4}">{html.escape(title)}{names}</text>'
        for index, title in enumerate(titles)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{2 * WIDTH}">'
        f'<style>{_STYLE}</style><rect width="{WIDTH}" height="{height}" fill="white"/>{"".join(placed)}</svg>\n'
    )


def _svg(label: str, body: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(label)}">'
        f"{''.join(body)}</svg>"
    )


def _x(axis: Axis, value: float) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * (value - axis.low) / (axis.high - axis.low)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - axis.low) / (axis.high - axis.low)


def _frame(x: Axis, y: Axis) -> str:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    for value, text in y.ticks:
        place = _y(y, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{place + 4:.1f}" text-anchor="end">{html.escape(text)}</text>')
    for value, text in x.ticks:
        place = _x(x, value)
        parts.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{place:.1f}" y="{bottom + 15}" text-anchor="middle">{html.escape(text)}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x.title)}</text>')
    if y.title:
        turned = f"translate(10 {middle}) rotate(-90)"
        parts.append(f'<text transform="{turned}" text-anchor="middle">{html.escape(y.title)}</text>')
    return "".join(parts)
