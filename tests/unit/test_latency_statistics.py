"""Latency statistics, and percentiles only where enough samples lie above them."""

from __future__ import annotations

import pytest

from shared.latency import summarize, summarize_stages


def test_values():
    summary = summarize([1.0, 2.0, 3.0, 6.0])
    assert summary["mean"] == 3.0
    assert summary["std"] == pytest.approx(2.160247, abs=1e-6)
    assert (summary["min"], summary["median"], summary["max"]) == (1.0, 2.5, 6.0)
    assert summary["throughput"] == pytest.approx(1000 / 3)


@pytest.mark.parametrize(
    ("count", "percentiles"),
    [(19, []), (20, ["p50"]), (99, ["p50"]), (100, ["p50", "p90"]), (200, ["p50", "p90", "p95"]), (1000, ["p99"])],
)
def test_a_percentile_needs_ten_samples_above_it(count, percentiles):
    summary = summarize([float(value) for value in range(1, count + 1)])
    given = [name for name in summary if name.startswith("p")]
    assert given[-1:] == percentiles[-1:]


def test_one_sample_has_no_spread():
    assert summarize([5.0])["std"] == 0.0


def test_stages_keep_their_order():
    stages = summarize_stages({"b": [1.0, 3.0], "a": [2.0, 4.0], "total": [3.0, 7.0]})
    assert list(stages) == ["b", "a", "total"]
    assert stages["total"]["mean"] == 5.0
