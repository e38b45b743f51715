"""Questions of a search that are answered side by side, while the search itself asks one after another.

A search by halving needs the answer to one question to know the next. Where several can be answered at once, so are the
ones that follow from either answer; the search then takes the way that it would have taken, and finds the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

Question = TypeVar("Question", bound=Hashable)
Ask = Callable[[Question], bool]


class _Unanswered(Exception):
    def __init__(self, question: Hashable) -> None:
        super().__init__(question)
        self.question = question


def asking_ahead(
    search: Callable[[Ask[Question]], object], answer: Callable[[Sequence[Question]], Sequence[bool]], most: int
) -> Ask[Question]:
    """What to ask in a search.

    Args:
        search: the search, which does nothing but ask: it is tried out with possible answers.
        answer: answers questions, all at once.
        most: how many at once, at least 1; with 1 it gets those alone that the search asks.

    Returns:
        What answers the questions of the search.
    """
    known: dict[Question, bool] = {}

    def ask(question: Question) -> bool:
        if question not in known:
            questions = next_questions(search, known, most)
            known.update(zip(questions, answer(questions), strict=True))
        return known[question]

    return ask


def next_questions(
    search: Callable[[Ask[Question]], object], known: Mapping[Question, bool], most: int
) -> list[Question]:
    """The question that a search asks next, then those that it asks after either answer to that, and so on.

    Args:
        search: the search.
        known: the answers so far.
        most: how many questions at most.
    """
    found: list[Question] = []
    ways: deque[dict[Question, bool]] = deque([{}])
    while ways and len(found) < most:
        assumed = ways.popleft()
        question = _first_unanswered(search, {**known, **assumed})
        if question is None:
            continue
        if question not in found:
            found.append(question)
        ways.extend({**assumed, question: verdict} for verdict in (True, False))
    return found


def _first_unanswered(search: Callable[[Ask[Question]], object], answers: Mapping[Question, bool]) -> Question | None:
    def ask(question: Question) -> bool:
        if question not in answers:
            raise _Unanswered(question)
        return answers[question]

    try:
        search(ask)
    except _Unanswered as stop:
        return stop.question  # type: ignore[return-value]  # what `ask` was called with
    return None
