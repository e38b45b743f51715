"""A search whose questions are answered ahead finds the same, in fewer rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from shared.ask_ahead import Ask, asking_ahead, next_questions
from verifier.bisect.search import Window, find_bad


def _halving(count: int, ask: Ask[int]) -> int:
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if ask(middle):
            high = middle
        else:
            low = middle + 1
    return low


def test_what_follows_from_either_answer_is_asked_with_it() -> None:
    assert next_questions(lambda ask: _halving(7, ask), {}, 1) == [3]
    assert next_questions(lambda ask: _halving(7, ask), {}, 3) == [3, 1, 5]
    assert next_questions(lambda ask: _halving(7, ask), {3: False}, 3) == [5, 4, 6]
    assert next_questions(lambda ask: _halving(7, ask), {3: False, 5: False, 6: True}, 3) == []


def test_a_search_that_asks_the_same_again_ends() -> None:
    assert next_questions(lambda ask: [ask("a"), ask("a")], {}, 5) == ["a"]


@given(st.integers(0, 200), st.data(), st.integers(1, 9))
def test_halving_finds_the_same_in_as_many_levels_as_fit_a_round(count: int, data: st.DataObject, most: int) -> None:
    first = data.draw(st.integers(0, count))
    rounds: list[Sequence[int]] = []

    def answer(questions: Sequence[int]) -> list[bool]:
        rounds.append(questions)
        return [question >= first for question in questions]

    def search(ask: Ask[int]) -> int:
        return _halving(count, ask)

    assert search(asking_ahead(search, answer, most)) == first
    assert all(1 <= len(questions) <= most and len(set(questions)) == len(questions) for questions in rounds)
    assert len(rounds) <= math.ceil(math.log2(count + 1) / math.floor(math.log2(most + 1))) if count else not rounds


@given(st.integers(1, 60), st.data(), st.integers(1, 7))
def test_faults_are_found_as_without(count: int, data: st.DataObject, most: int) -> None:
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=3))

    def is_bad(window: Window) -> bool:
        return any(window[0] <= place < window[1] for place in bad)

    def search(ask: Ask[Window]) -> list[Window]:
        return find_bad(count, lambda first, last: ask((first, last)))

    one_by_one: list[Window] = []
    ahead: list[Window] = []

    def counted(asked: list[Window]) -> Ask[Window]:
        def answer(windows: Sequence[Window]) -> list[bool]:
            asked.extend(windows)
            return [is_bad(window) for window in windows]

        return asking_ahead(search, answer, 1 if asked is one_by_one else most)

    assert search(counted(one_by_one)) == search(counted(ahead)) == [(place, place + 1) for place in sorted(bad)]
    assert set(one_by_one) <= set(ahead)
