"""The search: which of N groups are bad, asking about windows of neighbors, in some log2(N) questions a fault."""

from __future__ import annotations

from collections.abc import Callable

Window = tuple[int, int]


def find_bad(count: int, is_bad: Callable[[int, int], bool]) -> list[Window]:
    """The smallest windows that are bad.

    The leftmost fault is found by halving: as long as the left half is good, the fault is in the right one. What lies
    right of it is asked about next. So F faults of single groups take at most ``F * (ceil(log2(N)) + 2) + 1``
    questions. A window can be bad although none of its groups is (two that are only wrong together); then it is
    narrowed from both sides instead.

    Args:
        count: N, number of groups.
        is_bad: whether the window ``[first, last)`` is bad. Assumed: a window that contains a bad one is bad.

    Returns:
        Windows ``[first, last)`` that don't overlap, in order. One group each, but for faults of several together.
    """
    found: list[Window] = []
    first = 0
    while first < count and is_bad(first, count):
        window = _leftmost(first, count, is_bad)
        found.append(window)
        first = window[1]
    return found


def _leftmost(first: int, last: int, is_bad: Callable[[int, int], bool]) -> Window:
    """The leftmost bad group of the bad window ``[first, last)``; if none is bad alone, a smallest bad window."""
    low, high = first, last
    known = (first, last)
    while high - low > 1:
        middle = (low + high) // 2
        if is_bad(low, middle):
            high = middle
            known = (low, high)
        else:
            low = middle
    if known == (low, high) or is_bad(low, high):
        return (low, high)
    return _narrowed(*known, is_bad)


def _narrowed(first: int, last: int, is_bad: Callable[[int, int], bool]) -> Window:
    """A bad window within the bad ``[first, last)`` that is good without its first or its last group."""
    low = _last_bad(first, last, lambda start: is_bad(start, last))
    return (low, _last_bad(last, low, lambda end: is_bad(low, end)))


def _last_bad(bad: int, good: int, is_bad: Callable[[int], bool]) -> int:
    """The last bad bound on the way from a bad one to a good one, up or down."""
    while abs(good - bad) > 1:
        middle = (bad + good) // 2
        if is_bad(middle):
            bad = middle
        else:
            good = middle
    return bad
