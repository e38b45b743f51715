"""A soak's latencies that are not flat: the clocks beside them tell a GPU that was slowed down from drift."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drift import Part, drift

# Made up between the ends of what was seen on an H200 at its power cap: 3.82 ms at first, 4.17 ms on a warm card.
CLOCKS = np.array([1980, 1980, 1965, 1920, 1860, 1830, 1815, 1800, 1800, 1800])


def parts(
    medians: np.ndarray, clocks: np.ndarray = CLOCKS, reason: str = "software power cap", **more: object
) -> list[Part]:
    """Tenths of a soak, each with readings of the clock around its mean."""
    return [
        Part(float(median), (clock - 15.0, clock, clock + 15.0), frozenset({reason} if clock < 1980 else ()), **more)  # type: ignore[arg-type]
        for median, clock in zip(medians, clocks, strict=True)
    ]


def test_what_is_flat_needs_no_reason() -> None:
    assert drift(parts(np.linspace(3.82, 3.99, 10))).cause == "flat"


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("software power cap", "power cap"),
        ("hardware thermal slowdown", "thermal"),
        ("application clocks", "clocks"),
    ],
)
def test_slower_by_the_clocks_is_what_throttled_them(reason: str, cause: str) -> None:
    for bound in (1.0, 0.8):  # the share of the time that goes with the clock
        found = drift(parts(3.82 * (1 - bound + bound * 1980 / CLOCKS), reason=reason))
        assert found.cause == cause
        assert found.spread == pytest.approx(1 + bound * 0.1, abs=1e-3)
        assert found.left < 1.01


def test_slower_at_the_same_clocks_is_drift() -> None:
    constant = np.full(10, 1980)
    assert drift(parts(np.linspace(3.82, 4.17, 10), constant)).cause == "drift"


def test_slower_by_more_than_the_clocks_is_drift_although_they_fell() -> None:
    """The fit may not subtract a constant: at a tenth less clock, no request takes a third longer."""
    assert drift(parts(3.82 * (1980 / CLOCKS) ** 3)).cause == "drift"


def test_a_leak_that_slows_down_is_drift_although_the_clocks_vary() -> None:
    varying = np.array([1980, 1800] * 5)
    assert drift(parts(np.linspace(3.8, 4.6, 10), varying)).cause == "drift"


@pytest.mark.parametrize("more", [{"others": 2}, {"waited": 0.4}])
def test_another_process_is_named_where_it_was_there_while_it_was_slow(more: dict[str, float]) -> None:
    constant, medians = np.full(10, 1980), np.array([3.8] * 6 + [5.1] * 4)
    quiet, disturbed = parts(medians, constant), parts(medians, constant, **more)
    assert drift([*quiet[:6], *disturbed[6:]]).cause == "another process"
    assert drift([*disturbed[:6], *quiet[6:]]).cause == "drift"


def test_faster_at_the_end_is_no_drift() -> None:
    """Recorded on an H200 at a constant clock: 5,000 requests of the demo. Why the first were slower is not known."""
    medians = np.array([1.1508, 1.1913, 1.1659, 1.1567, 1.173, 1.1697, 1.1472, 1.1259, 1.0469, 1.0046])
    assert drift(parts(medians, np.full(10, 1980))).cause == "unsteady"


def test_a_part_is_made_of_what_was_read() -> None:
    conditions = [
        {"sm_clock_mhz": "1980", "throttled_by": "nothing", "compute_processes": "1"},
        {"sm_clock_mhz": "1755", "throttled_by": "software power cap + idle", "compute_processes": "3"},
        {},
    ]
    part = Part.of([1.0, 3.0, 2.0], conditions, waited=0.2)
    assert part == Part(2.0, (1980.0, 1755.0), frozenset({"software power cap"}), 2, 0.2)
    assert drift([part] * 3).json() == {"cause": "flat", "spread": 1.0, "left": 1.0}


def test_without_clocks_what_is_not_flat_is_drift() -> None:
    assert drift([Part(1.0), Part(1.2)]).cause == "drift"
