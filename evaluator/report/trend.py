"""Section: the headline numbers and the latency over the versions of the workspace, as in `evaluator history`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluator.history import NOW, Evaluated, evaluated_versions
from evaluator.report.blocks import Block, Chart, Charts, Grid, Section, Text
from evaluator.report.material import Material
from evaluator.report.svg import SERIES, Axis, Line, line_chart, linear_axis, mark, standalone
from evaluator.report.tasks import TaskReport
from shared.files import write_text
from shared.latency import TOTAL
from shared.table import MISSING, number

# Headline numbers that get a chart.
_SHOWN = 3
# Names on the axis: so many fit, and so many letters of each.
_NAMES, _LETTERS = 5, 11
# An axis spans at least this share of its values, so that noise doesn't look like a change.
_LEAST_SPREAD = 0.02


def section(material: Material, _: TaskReport | None) -> Section | None:
    """Charts and a table; None for a workspace without versions."""
    evaluated, left_out = evaluated_versions(material.workspace.root)
    if len(evaluated) < 2:
        return None
    metrics = _metrics(evaluated)[:_SHOWN]
    runs = _runs(evaluated)
    rows = [
        [
            one.title,
            subject.created[:16].replace("T", " "),
            subject.run,
            subject.precision,
            *(number(subject.evaluation["headline"].get(name), 4) for name in metrics),
            number(subject.evaluation["latency"][TOTAL]["median"], 1),
            number(one.benches.get(subject.run), 1),
            MISSING if subject.model_bytes is None else f"{subject.model_bytes / 1e6:.1f}",
        ]
        for one in evaluated
        for subject in one.subjects
    ]
    columns = ["version", "made (UTC)", "run", "precision", *metrics, "median [ms]", "bench [ms]", "model [MB]"]
    blocks: list[Block] = [
        Charts(trend_charts(evaluated, metrics), _legend(runs)),
        Grid("Versions of this workspace, oldest first", columns, rows),
    ]
    blocks += [Text(line, "muted") for line in left_out]
    return Section("trend", "Trend", blocks)


def trend_charts(evaluated: Sequence[Evaluated], metrics: Sequence[str]) -> list[Chart]:
    """A chart for each of ``metrics``, and for the latencies; baselines are marked."""
    runs = _runs(evaluated)
    charts = [
        *(_chart(name, evaluated, runs, [_headline(one, name) for one in evaluated]) for name in metrics),
        _chart("median latency [ms]", evaluated, runs, [_latency(one) for one in evaluated]),
    ]
    if any(one.benches for one in evaluated):
        charts.append(_chart("median of runtime bench [ms]", evaluated, runs, [one.benches for one in evaluated]))
    return charts


def draw(work: Path, metrics: Sequence[str], file: Path) -> None:
    """Write the charts of a workspace as a file of their own, SVG."""
    evaluated, _ = evaluated_versions(work)
    charts = trend_charts(evaluated, metrics or _metrics(evaluated)[:_SHOWN])
    titles = [chart.title for chart in charts]
    write_text(file, standalone([chart.svg for chart in charts], titles, _legend(_runs(evaluated))))


def _legend(runs: Sequence[str]) -> list[tuple[str, str]]:
    return [(f"s{index % SERIES}", run) for index, run in enumerate(runs)]


def _runs(evaluated: Sequence[Evaluated]) -> list[str]:
    return list(dict.fromkeys(subject.run for one in evaluated for subject in one.subjects))


def _metrics(evaluated: Sequence[Evaluated]) -> list[str]:
    subjects = [subject for one in evaluated for subject in one.subjects]
    return list(dict.fromkeys(name for subject in subjects for name in subject.evaluation["headline"]))


def _headline(one: Evaluated, name: str) -> dict[str, float | None]:
    return {subject.run: subject.evaluation["headline"].get(name) for subject in one.subjects}


def _latency(one: Evaluated) -> dict[str, float | None]:
    return {subject.run: subject.evaluation["latency"][TOTAL]["median"] for subject in one.subjects}


def _chart(
    title: str, evaluated: Sequence[Evaluated], runs: Sequence[str], values: Sequence[Mapping[str, float | None]]
) -> Chart:
    """A line for each run; ``values``: by run, one mapping a version."""
    lines = []
    for index, run in enumerate(runs):
        known = [(float(place), value) for place, of in enumerate(values) if (value := of.get(run)) is not None]
        lines.append(Line(known, f"s{index % SERIES}", dots=True))
    drawn = [value for line in lines for _, value in line.points]
    low, high = (min(drawn), max(drawn)) if drawn else (0.0, 1.0)
    spread = max(high - low, _LEAST_SPREAD * abs(high))
    y = linear_axis("", low - spread / 4, high + spread / 4)
    step = -(-len(evaluated) // _NAMES)
    # The last one always has its name: it is what the page is about.
    named = range((len(evaluated) - 1) % step, len(evaluated), step)
    ticks = [(float(place), _short(evaluated[place].version or NOW)) for place in named]
    x = Axis("version", -0.25, len(evaluated) - 0.75, ticks)
    svg = line_chart(f"{title} by version", lines, x, y)
    for place, one in enumerate(evaluated):
        svg = mark(svg, x, place, "baseline") if one.baseline else svg
    return Chart(title, svg)


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
