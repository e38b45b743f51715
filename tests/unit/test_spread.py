"""How samples are cut into ranges for the workers of a cluster."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.pace import sentence, side_by_side
from runtime.spread import Cutter, Span
from tests.support.run_files import run_header


@dataclass
class Crew:
    """So many workers."""

    count: int


def spans(cutter: Cutter) -> list[Span]:
    return list(iter(cutter.next, None))


@given(st.sets(st.integers(0, 300)), st.integers(1, 9), st.floats(0.001, 100))
def test_every_missing_sample_is_in_one_range_and_no_other_is(missing: set[int], workers: int, seconds: float) -> None:
    cutter = Cutter(sorted(missing), Crew(workers), run_header(301))
    found: list[int] = []
    for span in iter(cutter.next, None):
        cutter.learn(len(span), seconds)
        found += span.samples
        assert span.header.run.tokens == [f"s{index}" for index in span.samples]
    assert found == sorted(missing)


def test_ranges_take_seconds_and_get_short_near_the_end() -> None:
    cutter = Cutter(range(10_000), Crew(4), run_header(10_000))
    first = cutter.next()
    assert first is not None
    assert len(first) == 8
    cutter.learn(len(first), 0.02)  # 400 a second
    assert [len(span) for span in spans(cutter)][:3] == [1200, 1099, 962]
    assert len({span.folder for span in spans(Cutter(range(10_000), Crew(4), run_header(10_000)))}) > 8


def test_a_slow_model_gets_one_sample_at_a_time() -> None:
    cutter = Cutter(range(100), Crew(2), run_header(100))
    cutter.learn(1, 20.0)
    assert {len(span) for span in spans(cutter)} == {1}


def test_the_pace_of_several_is_that_of_all_together() -> None:
    fast = {"samples": 300, "per_second": 100.0, "parts": {"read": 0.5, "commit": 0.5}, "processor_seconds": 0.01}
    slow = {"samples": 100, "per_second": 100.0, "parts": {"read": 0.1, "commit": 0.9}, "processor_seconds": 0.03}
    both = side_by_side([fast, slow], seconds=2.0, taking_in=0.5)
    assert both is not None
    assert (both["samples"], both["per_second"]) == (400, 200.0)
    assert both["parts"] == pytest.approx({"read": 0.4, "commit": 0.6})
    assert both["processor_seconds"] == pytest.approx(0.015)
    assert (both["at_work"], both["taking_in"]) == (2.0, 0.25)
    assert sentence(both).endswith("2.0 workers answered at a time, this command took their answers in for 25% of it")
    assert side_by_side([], seconds=1.0, taking_in=0.0) is None
