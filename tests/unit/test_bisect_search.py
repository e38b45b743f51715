"""The search for responsible nodes: finds every planted fault, and asks no more than it promises."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from verifier.bisect.search import find_bad


class Oracle:
    """Answers whether a window is bad, and counts."""

    def __init__(self, bad: set[int], together: tuple[int, int] | None = None) -> None:
        self.bad = bad
        self.together = together
        self.asked: list[tuple[int, int]] = []

    def __call__(self, first: int, last: int) -> bool:
        assert first < last
        self.asked.append((first, last))
        both = self.together is not None and all(first <= place < last for place in self.together)
        return both or any(first <= place < last for place in self.bad)


@st.composite
def _faults(draw: st.DrawFn) -> tuple[int, set[int]]:
    count = draw(st.integers(1, 300))
    return count, draw(st.sets(st.integers(0, count - 1), max_size=4))


@given(_faults())
def test_every_fault_is_found_alone_in_few_questions(case: tuple[int, set[int]]) -> None:
    count, bad = case
    oracle = Oracle(bad)
    assert find_bad(count, oracle) == [(place, place + 1) for place in sorted(bad)]
    assert len(oracle.asked) <= len(bad) * (math.ceil(math.log2(count)) + 2) + 1
    assert len(set(oracle.asked)) >= len(oracle.asked) - len(bad), "questions are hardly repeated"


def test_no_fault_takes_one_question() -> None:
    oracle = Oracle(set())
    assert find_bad(1000, oracle) == []
    assert oracle.asked == [(0, 1000)]


@given(st.integers(2, 200), st.data())
def test_two_that_are_only_wrong_together_give_the_smallest_window(count: int, data: st.DataObject) -> None:
    first, second = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=2, max_size=2)))
    oracle = Oracle(set(), (first, second))
    assert find_bad(count, oracle) == [(first, second + 1)]
    assert len(oracle.asked) <= 3 * math.ceil(math.log2(count)) + 5


def test_a_fault_beside_two_that_are_wrong_together() -> None:
    assert find_bad(64, Oracle({50}, (3, 9))) == [(3, 10), (50, 51)]
