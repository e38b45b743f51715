"""Charts of 3D detection by distance from the vehicle: what share is found, and how far off what is found is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evaluator.report.blocks import Chart, Charts
from evaluator.report.boxes3d import Frames, matches
from evaluator.report.svg import Line, line_chart, linear_axis
from shared.arrays import Float64
from shared.metrics.box_table import BoxTable
from shared.metrics.nuscenes import ERROR_DISTANCE, errors_of_matches

# Width of a bin [m], and how many boxes make a mean worth drawing.
_BIN = 10.0
_FEWEST = 5
# Per error of nuScenes, what it is on an axis.
_ERRORS: Mapping[str, str] = {
    "ATE": "center off by [m]",
    "ASE": "size off by [1 - IoU]",
    "AOE": "heading off by [rad]",
    "AVE": "velocity off by [m/s]",
}


def charts(frames: Frames, runs: Sequence[str], classes: Sequence[str]) -> Charts:
    """Recall, precision and mean errors by distance of the runs, the first one solid.

    Args:
        frames: the boxes that count, of all frames.
        runs: the shown run, then perhaps another one.
        classes: class list.
    """
    found = {run: _by_distance(frames.predictions[run], frames.truths, classes) for run in runs}
    names = {"recall": "recall", "precision": "precision", **_ERRORS}
    drawn = [_chart(title, [found[run].get(name, []) for run in runs]) for name, title in names.items()]
    legend = [("s0" if not index else "s1 dashed", run) for index, run in enumerate(runs)]
    title = f"By distance from the vehicle: hits within {ERROR_DISTANCE:g} m, boxes from each class's best F1 on"
    return Charts([chart for chart in drawn if chart is not None], legend, title)


def _by_distance(
    predictions: BoxTable, truths: BoxTable, classes: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
    """Per quantity, its mean in each bin with enough boxes, at the bin's middle."""
    matched = matches(predictions, truths)
    hit = matched >= 0
    taken = np.zeros(len(truths))
    taken[matched[hit]] = 1
    wanted, given = truths.distances_to_ego(), predictions.distances_to_ego()
    errors = errors_of_matches(predictions.select(hit), truths.select(matched[hit]), classes)
    return {
        "recall": _means(wanted, taken),
        "precision": _means(given, hit.astype(np.float64)),
        **{name: _means(given[hit], errors[name]) for name in _ERRORS},
    }


def _means(distances: Float64, values: Float64) -> list[tuple[float, float]]:
    known = ~np.isnan(values)
    bins = (distances[known] // _BIN).astype(np.int64)
    counts = np.bincount(bins)
    sums = np.bincount(bins, weights=values[known])
    return [
        (float((index + 0.5) * _BIN), float(sums[index] / counts[index]))
        for index in np.flatnonzero(counts >= _FEWEST).tolist()
    ]


def _chart(title: str, lines: Sequence[list[tuple[float, float]]]) -> Chart | None:
    values = [value for line in lines for _, value in line]
    if not values:
        return None
    x = linear_axis("distance [m]", 0, max(place for line in lines for place, _ in line) + _BIN / 2)
    y = linear_axis("", 0, 1 if title in ("recall", "precision") else max(values))
    styles = ("s0", "s1 dashed")
    drawn = [Line(line, style) for line, style in zip(lines, styles, strict=False)]
    return Chart(title[0].upper() + title[1:], line_chart(f"{title} by distance", drawn, x, y))
