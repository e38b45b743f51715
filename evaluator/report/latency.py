"""Section: how long requests take, and where the time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluator.report.blocks import Block, Cell, Chart, Charts, Grid, Heading, Section, Text
from evaluator.report.material import Material
from evaluator.report.svg import SERIES, Line, bar_chart, line_chart, linear_axis
from evaluator.report.tasks import TaskReport
from shared.latency import NOT_STAGES, TOTAL, disturbance, disturbed
from shared.runs import Run
from shared.staleness import outdated_inputs
from shared.table import number

_BINS = 24
_COLUMNS = ("mean", "median", "p90", "p99", "max")


def section(material: Material, _: TaskReport | None) -> Section | None:
    """Per run its stages as bars, the distribution and the course of the total; results of `runtime bench`."""
    if not material.evaluations:
        return None
    components = [component.name for component in material.spec.components]
    blocks: list[Block] = []
    for name, evaluation in material.evaluations.items():
        blocks += _stages(f"{name}, over the data set", evaluation["latency"], components)
        blocks += in_flight_note(material.runs[name])
    charts = []
    for index, (name, run) in enumerate(material.runs.items()):
        charts += _distribution(name, run, f"s{index % SERIES}")
    blocks.append(Charts(charts, title="Every request of the runs"))
    for name, result in material.manifest.results.get("bench", {}).items():
        stage = f"bench:{name}"
        if material.manifest.stages[stage].status != "done" or outdated_inputs(material.manifest, stage):
            continue
        samples = "one sample" if result.get("batch") is None else f"{result['batch']} samples a request"
        blocks += _stages(f"{name}, runtime bench on {samples}", result["stages"], components)
    return Section("latency", "Latency", blocks)


def _stages(title: str, statistics: Mapping[str, Mapping[str, float]], components: Sequence[str]) -> list[Block]:
    """A sentence on the bottleneck, and a bar per stage."""
    medians = {name: values["median"] for name, values in statistics.items() if name not in NOT_STAGES}
    whole = sum(medians.values())
    columns = [column for column in _COLUMNS if column in statistics[TOTAL]]
    rows: list[list[str | Cell]] = []
    for name, values in statistics.items():
        share = medians[name] / whole if name in medians and whole else None
        series = 0 if name in components else 1
        bar: str | Cell = Cell(f"{share:.1%}", share=share, series=series) if share is not None else ""
        rows.append([name, bar, *(number(values.get(column), 2) for column in columns)])
    table = Grid(f"Stages of {title} [ms]", ["stage", "share of the stages", *columns], rows)
    blocks: list[Block] = [Heading(title)]
    if (found := disturbance(statistics[TOTAL])) is not None:
        blocks.append(Text(f"{found}: these are not the latencies of the model alone."))
    if not whole:
        return [*blocks, table]
    slowest = max(medians, key=lambda name: medians[name])
    inside = sum(medians.get(name, 0.0) for name in components) / whole
    sentence = (
        f"The bottleneck is {slowest} with {medians[slowest] / whole:.0%} of the time; the model's components "
        f"have {inside:.0%}, the steps around them {1 - inside:.0%}."
    )
    return [*blocks, Text(sentence), table]


def in_flight_note(run: Run) -> list[Text]:
    """Which samples the latencies are of, where it is not all of them."""
    timed = int(np.count_nonzero(run.timed()))
    if timed == len(run):
        return []
    several = run.header.details["in_flight"]
    return [
        Text(f"Up to {several} requests were in flight; {timed} of {len(run)} samples had the device to themselves.")
    ]


def _distribution(name: str, run: Run, style: str) -> list[Chart]:
    latencies = run.timed_latencies()
    totals = latencies[TOTAL]
    counts, edges = np.histogram(totals, bins=min(_BINS, max(1, len(totals))))
    x = linear_axis("total [ms]", float(edges[0]), float(edges[-1]))
    y = linear_axis("requests", 0, float(counts.max()))
    bars = [
        (float(low), float(high), float(count))
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        if count
    ]
    histogram = bar_chart(f"Histogram of the total latency of {name}", bars, x, y, style)
    course_x = linear_axis("request", 0, max(1, len(totals) - 1))
    course_y = linear_axis("total [ms]", 0, float(totals.max()))
    points = [(float(index), float(total)) for index, total in _thinned(totals)]
    course = line_chart(f"Total latency of {name}, request by request", [Line(points, style)], course_x, course_y)
    found = disturbed(latencies)
    count = 0 if found is None else int(np.count_nonzero(found))
    caption = f"median {np.median(totals):.1f} ms, {len(totals)} requests" + (f", {count} disturbed" if count else "")
    return [
        Chart(f"{name}: distribution", histogram, caption),
        Chart(f"{name}: over the run", course, _drift(totals)),
    ]


def _thinned(totals: np.ndarray[Any, Any], most: int = 400) -> list[tuple[int, float]]:
    """At most ``most`` points: the largest of each stretch, so that no spike is lost."""
    stretches = np.array_split(np.arange(len(totals)), min(most, len(totals)))
    return [(int(at), float(totals[at])) for stretch in stretches for at in [stretch[totals[stretch].argmax()]]]


def _drift(totals: np.ndarray[Any, Any]) -> str:
    """Median of the last third against that of the first."""
    third = len(totals) // 3
    if not third:
        return ""
    first, last = float(np.median(totals[:third])), float(np.median(totals[-third:]))
    change = last / first - 1 if first else 0.0
    return f"last third {change:+.0%} against the first"
