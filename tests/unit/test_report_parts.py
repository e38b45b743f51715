"""Parts of the report: axes and charts, choice of frames, tables of confusion, alignment of columns."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.report.blocks import Cell, Grid
from evaluator.report.counts import detection_confusion, f1
from evaluator.report.pictures import MOST_FRAMES, MOST_WITH_MEDIA, by_score, chosen
from evaluator.report.svg import HEIGHT, WIDTH, Line, bar_chart, counts, line_chart, linear_axis, mark
from evaluator.report.tasks import find_task

_NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@given(_NUMBERS, _NUMBERS)
def test_axes_reach_their_ends_with_few_round_ticks(low: float, high: float) -> None:
    axis = linear_axis("x", low, high)
    tolerance = 2e-6 * max(1.0, abs(low), abs(high))
    assert axis.low <= low + tolerance
    assert axis.high >= high - tolerance or high <= low
    assert axis.high > axis.low
    places = [place for place, _ in axis.ticks]
    assert 2 <= len(places) <= 9 and places == sorted(places)
    labels = [label for _, label in axis.ticks]
    assert len(set(labels)) == len(labels)
    assert all(math.isclose(float(label), place, rel_tol=1e-6, abs_tol=1e-9) for place, label in axis.ticks)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), max_size=20))
def test_lines_stay_in_the_picture(points: list[tuple[float, float]]) -> None:
    svg = line_chart("a < b", [Line(points, "s0")], linear_axis("x", 0, 10), linear_axis("y & z", 0, 5))
    drawn = ET.fromstring(svg).find("polyline")
    assert drawn is not None
    places = [tuple(map(float, place.split(","))) for place in drawn.attrib["points"].split()]
    assert len(places) == len(points)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)


def test_higher_values_are_higher_and_bars_stand_on_the_axis() -> None:
    axis = linear_axis("y", 0, 4)
    svg = ET.fromstring(bar_chart("bars", [(0, 1, 1), (1, 2, 4)], linear_axis("x", 0, 2), axis))
    small, large = ({key: float(bar.attrib[key]) for key in ("y", "height")} for bar in svg.findall("rect"))
    assert large["height"] == pytest.approx(4 * small["height"], abs=0.5)
    assert large["y"] + large["height"] == pytest.approx(small["y"] + small["height"], abs=0.2)


def test_a_mark_beyond_the_axis_is_left_out() -> None:
    x = linear_axis("x", 0, 10)
    svg = line_chart("l", [], x, linear_axis("y", 0, 1))
    assert mark(svg, x, 11, "limit") == svg
    assert "limit" in mark(svg, x, 5, "limit")


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=3 * MOST_FRAMES))
def test_listed_frames_are_all_or_the_worst_and_some_of_the_others(scores: list[float | None]) -> None:
    listed = chosen(by_score(scores))
    assert len(listed) == len(set(listed)) == min(MOST_FRAMES, len(scores))
    known = sorted(score for score in scores if score is not None)
    if known:
        first = [scores[position] for position in listed[:MOST_WITH_MEDIA]]
        assert known[0] in first, "the worst frame gets its points and photos"
    if None not in scores and scores:
        assert known[-1] in [scores[position] for position in listed]


def test_confusion_counts_everything_once() -> None:
    # Two cars and a bus; said: a car for a car, a bus for the other, a car where nothing is; the bus is missed.
    grid = detection_confusion(
        np.array([(0, 0), (0, 1)]), np.array([0, 0, 1]), np.array([0, 1, 0]), ["car", "bus", "tram"], "t"
    )
    assert list(grid.columns) == ["truth", "car", "bus", "not found", "sum"]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in grid.cells()}
    assert rows == {
        "car": ["1", "1", "0", "2"],
        "bus": ["0", "0", "1", "1"],
        "nothing there": ["1", "0", "0", "1"],
    }


def test_f1_of_nothing_is_unknown() -> None:
    assert f1(0, 0, 0) is None
    assert f1(1, 2, 2) == 0.5


def test_columns_of_numbers_are_aligned_right_bars_are_not() -> None:
    grid = Grid("t", ["a", "b", "c", "d"], [["x", "-1.5", "-", Cell("3", share=0.5)], ["y", "2e-3", "word", Cell("4")]])
    assert grid.numeric() == [False, True, False, False]
    assert Grid("t", ["a"], []).numeric() == [True]


def test_a_task_without_a_module_has_a_report_all_the_same() -> None:
    assert find_task("detection3d") is not None
    assert find_task("segmentation") is None


def test_places_of_a_chart_show_how_many_samples_stand_behind_them() -> None:
    x, y = linear_axis("confidence", 0, 1), linear_axis("share", 0, 1)
    plain = line_chart("Accuracy over confidence", [], x, y)
    svg = counts(plain, x, [(0.25, 7), (0.75, 1234)])
    numbers = re.findall(r"translate\(([\d.]+) [\d.]+\) rotate\(-90\)\">(\d+)<", svg)
    assert [text for _, text in numbers] == ["7", "1234"]
    assert float(numbers[0][0]) < float(numbers[1][0]) and svg.endswith("</svg>")
