"""Statistics of output differences: what NumPy says in one go, however the samples come, and nothing hides."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from verifier import statistics
from verifier.histogram import QUANTILES
from verifier.statistics import OutputStatistics

_VALUES = st.floats(-1e6, 1e6, width=32)
# One histogram bin is 1/32 of an octave wide: at most so much above the exact quantile.
_BIN = 1 + 1 / 32


def _compare(pairs: list[tuple[np.ndarray, np.ndarray]]) -> OutputStatistics:
    collected = OutputStatistics()
    for sample, (reference, test) in enumerate(pairs):
        collected.add(sample, reference, test)
    return collected


@settings(max_examples=60)
@given(
    st.lists(
        arrays.arrays(np.float32, st.tuples(st.just(2), st.integers(1, 40)), elements=_VALUES), min_size=1, max_size=5
    )
)
def test_equals_numpy_on_everything_at_once(samples: list[np.ndarray]) -> None:
    summary = _compare([(pair[0], pair[1]) for pair in samples]).summary()
    reference = np.concatenate([pair[0] for pair in samples]).astype(np.float64)
    test = np.concatenate([pair[1] for pair in samples]).astype(np.float64)
    error = np.abs(reference - test)
    assert summary["compared"] == summary["elements"] == len(error)
    assert summary["max_abs"] == error.max()
    assert summary["mean_abs"] == pytest.approx(error.mean())
    assert summary["rmse"] == pytest.approx(math.sqrt((error**2).mean()))
    for q in QUANTILES:
        exact = np.quantile(error, q, method="inverted_cdf")
        # Errors below the smallest normal number count as none.
        assert exact * (1 - 1e-12) <= summary["quantiles_abs"][str(q)] <= max(exact * _BIN, 1e-300) or exact < 1e-300
    noise, signal = (error**2).sum(), (reference**2).sum()
    if noise > 0 and signal > 0:
        assert summary["snr_db"] == pytest.approx(10 * math.log10(signal / noise), abs=1e-6)
        assert summary["psnr_db"] == pytest.approx(
            10 * math.log10(np.abs(reference).max() ** 2 / (error**2).mean()), abs=1e-6
        )
    if signal > 1e-30 and (test**2).sum() > 1e-30:
        assert summary["cosine"] == pytest.approx((reference @ test) / math.sqrt(signal * (test**2).sum()), abs=1e-9)
    json.dumps(summary, allow_nan=False)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(3, 50, 7)), rng.normal(size=(3, 50, 7))) for _ in range(3)]
    pairs[1][1][2, 49, 6] = 1e4
    pairs[2][0][0, 0, 0] = np.nan
    whole = _compare(pairs).summary()
    monkeypatch.setattr(statistics, "_CHUNK", 64)
    pieces = _compare(pairs).summary()
    assert whole["worst"] == pieces["worst"] and whole["worst"]["sample"] == 1 and whole["worst"]["index"] == [2, 49, 6]
    assert pieces["histogram_octaves"] == whole["histogram_octaves"]
    for name in ("mean_abs", "snr_db", "cosine", "worst_cosine", "max_relative", "rmse"):
        assert pieces[name] == pytest.approx(whole[name], rel=1e-12)


def test_worst_is_the_first_of_the_largest_with_its_values() -> None:
    reference = np.zeros((2, 3), np.float32)
    test = reference.copy()
    test[1, 2] = -4
    worst = _compare([(reference, reference), (reference, test), (reference, test)]).summary()["worst"]
    assert worst == {"sample": 1, "index": [1, 2], "reference": 0.0, "test": -4.0}


def test_not_finite_elements_are_counted_on_their_side_and_left_out() -> None:
    reference = np.array([1, np.nan, np.inf, 2, np.nan], np.float32)
    test = np.array([1, 1, 1, -np.inf, np.nan], np.float32)
    summary = _compare([(reference, test)]).summary()
    counts = [summary[name] for name in ("reference_nan", "reference_inf", "test_nan", "test_inf", "compared")]
    assert counts == [2, 1, 1, 1, 1]
    assert summary["max_abs"] == 0.0


def test_all_not_finite_compares_nothing() -> None:
    summary = _compare([(np.full(4, np.nan), np.ones(4))]).summary()
    assert summary["compared"] == 0 and summary["max_abs"] is None and summary["cosine"] is None


def test_other_shape_is_a_problem() -> None:
    collected = _compare([(np.zeros((2, 3)), np.zeros((3, 2))), (np.zeros(2), np.zeros(2))])
    assert collected.problems == ["sample 0: shape (3, 2), the reference has (2, 3)"]
    assert collected.summary()["samples"] == 1


def test_relative_error_survives_zeros() -> None:
    reference = np.array([0.0, 3.0, 4.0])
    summary = _compare([(reference, reference + np.array([0.5, 0.0, 0.0]))]).summary()
    scale = math.sqrt(25 / 3)
    assert summary["max_relative"] == pytest.approx(0.5 / scale)
    assert summary["mean_relative"] == pytest.approx(0.5 / scale / 3)
    assert _compare([(np.zeros(3), np.zeros(3))]).summary()["max_relative"] == 0.0
    assert _compare([(np.zeros(3), np.ones(3))]).summary()["max_relative"] is None, "infinite"


def test_identical_outputs_have_no_noise() -> None:
    values = np.linspace(-3, 3, 50)
    summary = _compare([(values, values.copy())]).summary()
    assert summary["noise_energy"] == 0.0 and summary["snr_db"] is None
    assert summary["cosine"] == 1.0 and summary["histogram_octaves"] == {"0 error": 50}


def test_histogram_counts_by_binary_exponent() -> None:
    errors = np.array([0.0, 0.25, 0.3, 0.49, 0.5, 6.0, 0.0])
    assert _compare([(np.zeros(7), errors)]).summary()["histogram_octaves"] == {"0 error": 2, "-2": 3, "-1": 1, "2": 1}


def test_silent_output_against_a_loud_one_has_no_cosine() -> None:
    summary = _compare([(np.ones(4), np.zeros(4))]).summary()
    assert summary["worst_cosine"] == 0.0 and summary["worst_cosine_sample"] == 0


def test_worst_cosine_is_of_the_worst_sample() -> None:
    rng = np.random.default_rng(3)
    good = rng.normal(size=1000)
    summary = _compare([(good, good), (good, -good), (good, good * 1.5)]).summary()
    assert summary["worst_cosine"] == pytest.approx(-1.0) and summary["worst_cosine_sample"] == 1


def test_integers_and_half_precision_are_compared_in_double() -> None:
    reference, test = np.array([2**62, 5], np.int64), np.array([2**62 + 2**11, 5], np.int64)
    assert _compare([(reference, test)]).summary()["max_abs"] == 2**11
    half = np.array([60000.0, -60000.0], np.float16)
    assert _compare([(half, -half)]).summary()["max_abs"] == pytest.approx(119_999, abs=70)


def test_memory_does_not_grow_with_samples() -> None:
    collected = OutputStatistics()
    size = collected._histogram.counts.nbytes
    for sample in range(50):
        collected.add(sample, np.ones(100), np.zeros(100))
    assert collected._histogram.counts.nbytes == size < 1 << 20
