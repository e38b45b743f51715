"""Intervals of medians, what counts as a difference, and the state of the GPU beside a measurement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.conditions import gpu_conditions
from shared.latency import compare, median_interval


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = median_interval(rng.lognormal(0, 0.5, 60), seed=trial)
        hits += low <= 1.0 <= high
    # 95 % of 200, give or take three standard deviations.
    assert hits >= 180


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 1e3), min_size=1, max_size=50))
def test_the_interval_lies_around_the_median_and_is_repeatable(values: list[float]) -> None:
    low, high = median_interval(values)
    assert min(values) <= low <= np.median(values) <= high <= max(values)
    assert median_interval(values) == (low, high)


def result(median: float, low: float, high: float) -> dict[str, float]:
    return {"median": median, "median_low": low, "median_high": high}


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (result(2, 1.9, 2.1), result(4, 3.9, 4.1), "2.00 times faster"),
        (result(4, 3.9, 4.1), result(2, 1.9, 2.1), "2.00 times slower"),
        (result(2, 1.9, 2.1), result(2.2, 2.05, 2.3), "no difference"),
        (result(2.2, 2.1, 2.3), result(2, 1.9, 2.1), "no difference"),
    ],
)
def test_a_difference_is_one_where_the_intervals_do_not_meet(
    ours: dict[str, float], theirs: dict[str, float], words: str
) -> None:
    assert compare(ours, theirs) == words


def install(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = folder / "nvidia-smi"
    script.write_text(f'#!/bin/sh\necho "$@" > "{folder}/asked"\n{body}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_state_of_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "echo '1980, 3201, 1980, 412.31, 41, 0x0000000000000004, Enabled, Default'", monkeypatch)
    state = gpu_conditions(1)
    assert (state["sm_clock_mhz"], state["throttle_reasons"]) == ("1980", "0x0000000000000004")
    assert (state["power_w"], state["temperature_c"]) == ("412.31", "41")
    assert "--id=1" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize("body", ["exit 9", "echo 'No devices were found'", "true"])
def test_no_state_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    install(tmp_path, body, monkeypatch)
    assert gpu_conditions(0) == {}


def test_no_state_without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_conditions(0) == {}
