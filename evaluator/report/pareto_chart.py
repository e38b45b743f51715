"""Chart: the metric over the latency of choices of precisions, with intervals, and the front that no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluator.report.blocks import Chart
from evaluator.report.svg import Line, line_chart, linear_axis, texts

# Room around the outermost points, as a share of the range.
_MARGIN = 0.06


def pareto_chart(run: str, choices: Sequence[Mapping[str, Any]]) -> Chart:
    """One point a choice, numbered as in the table.

    Args:
        run: name of the run.
        choices: what `evaluator.pareto.described` gave, the fastest first.
    """
    worth = "metric" if any(each["metric"] is not None for each in choices) else "lowest_snr_db"
    shown = [(number, each) for number, each in enumerate(choices, start=1) if each[worth] is not None]
    name = next((each["metric_name"] for _, each in shown if each["metric_name"]), "")
    title = f"{name} [points]" if worth == "metric" else "lowest SNR [dB]"
    points = [(each["latency_ms"], each[worth]) for _, each in shown]
    ranges = [(each["latency_ms"], each["interval"]) for _, each in shown if worth == "metric" and each["interval"]]
    heights = [value for _, value in points] + [bound for _, interval in ranges for bound in interval.values()]
    x = linear_axis("engines [ms]", *_around([place for place, _ in points]))
    y = linear_axis(title, *_around(heights))
    front = [point for point, (_, each) in zip(points, shown, strict=True) if each["front"]]
    lines = [
        *(Line([(place, interval["low"]), (place, interval["high"])], "s7") for place, interval in ranges),
        Line(front, "s2"),
        *(
            Line([point], "s2" if each["front"] else "s7", dots=True)
            for point, (_, each) in zip(points, shown, strict=True)
        ),
    ]
    label = f"{title} over the latency of the engines, {run}: {len(shown)} choices, {len(front)} on the front"
    numbers = [(*point, str(number)) for point, (number, _) in zip(points, shown, strict=True)]
    return Chart(run, texts(line_chart(label, lines, x, y), x, y, numbers), "numbers as in the table; green: the front")


def _around(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = _MARGIN * (high - low) or abs(high) * _MARGIN or 1.0
    return low - margin, high + margin
