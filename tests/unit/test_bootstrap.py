"""Intervals over resampled frames: as wide as they should be, paired where runs are compared, none from too little."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from evaluator import bootstrap
from evaluator.bootstrap import CONFIDENCE, FEWEST_UNITS, Draws, differences, draw, interval, intervals, replicate
from evaluator.boxes3d import t4, t4_matching
from shared.metrics import nuscenes
from shared.metrics.box_table import BoxTable
from tests.support.scenes import CLASSES, random_tables


def _names(count: int) -> list[str]:
    return [f"frame{index}" for index in range(count)]


def _all(draws: Draws) -> npt.NDArray[np.int64]:
    """(B, F) all draws."""
    return np.stack(list(draws))


def test_draws_keep_the_number_of_frames_and_repeat_with_the_seed() -> None:
    copies = _all(draw(_names(25)))
    assert (copies.sum(axis=1) == 25).all()
    assert copies.mean(axis=0) == pytest.approx(np.ones(25), abs=0.25)
    assert (_all(draw(_names(25))) == copies).all() and (_all(draw(_names(25), seed=1)) != copies).any()


def test_frames_of_a_scene_are_drawn_together() -> None:
    scenes = [f"scene{index // 4}" for index in range(80)]
    copies = _all(draw(scenes))
    by_scene = copies.reshape(len(copies), 20, 4)
    assert (by_scene == by_scene[:, :, :1]).all()
    assert (by_scene[:, :, 0].sum(axis=1) == 20).all()


def test_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = interval(
        replicate(draw(_names(400), 2000), lambda copies: {"mean": float(copies @ values) / 400}, "x")["mean"]
    )
    expected = 1.96 * values.std() / math.sqrt(400)
    assert found is not None
    assert found["high"] - found["low"] == pytest.approx(2 * expected, rel=0.1)
    assert found["low"] < values.mean() < found["high"]


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        values = rng.normal(0, 1, 60)
        copies = _all(draw(_names(60), 400, seed=trial))
        bounds = interval((copies @ values) / 60)
        assert bounds is not None
        covered += bounds["low"] <= 0 <= bounds["high"]
    # A percentile interval of 60 values is a little too narrow; far from the nominal share would be a mistake.
    assert CONFIDENCE - 0.06 < covered / 200 < CONFIDENCE + 0.05


def test_of_very_many_frames_some_are_drawn_and_the_interval_is_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "MOST_UNITS", 300)
    values = np.random.default_rng(0).normal(5, 2, 4000)
    draws = draw(_names(4000), 2000)
    assert {int(copies.sum()) for copies in draws} == {300}
    found = interval(replicate(draws, lambda copies: {"mean": float(copies @ values / copies.sum())}, "x")["mean"])
    expected = 1.96 * values.std() / math.sqrt(4000)
    assert found is not None
    assert found["high"] - found["low"] == pytest.approx(2 * expected, rel=0.1)
    assert (found["high"] + found["low"]) / 2 == pytest.approx(values.mean(), abs=expected / 5)


def test_draws_do_not_take_memory() -> None:
    copies = next(iter(draw(_names(50_000), 10**9)))
    assert copies.shape == (50_000,)


def test_difference_of_runs_is_paired() -> None:
    rng = np.random.default_rng(2)
    frames = rng.normal(0, 10, 100)
    copies = _all(draw(_names(100)))
    first = {"score": (copies @ frames) / 100}
    second = {"score": (copies @ (frames - 0.5)) / 100}
    alone, together = intervals(second)["score"], differences(second, first)["score"]
    assert alone is not None and together is not None
    assert alone["high"] - alone["low"] > 2
    assert (together["low"], together["high"]) == (pytest.approx(-0.5), pytest.approx(-0.5))


def test_too_few_units_give_no_interval() -> None:
    assert len(draw(_names(FEWEST_UNITS))) > len(draw(_names(FEWEST_UNITS - 1))) == 0
    assert replicate(draw(["one scene"] * 50), lambda copies: {"x": 1.0}, "x") == {}


def test_numbers_that_can_not_be_computed_give_no_interval() -> None:
    mostly_nan = np.where(np.arange(100) < 60, np.nan, 1.0)
    assert interval(mostly_nan) is None
    assert interval(np.where(np.arange(100) < 10, np.nan, 1.0)) == {"low": 1.0, "high": 1.0}


def _copied(table: BoxTable, copies: np.ndarray) -> BoxTable:
    """The table of a set in which frames really are repeated, copies renamed to frames of their own."""
    rows, frames = [], []
    new_frame = 0
    for frame, times in enumerate(copies):
        own = np.flatnonzero(table.frames == frame)
        for _ in range(times):
            rows.append(own)
            frames.append(np.full(len(own), new_frame))
            new_frame += 1
    selected = table.select(np.concatenate(rows))
    return BoxTable(**{**vars(selected), "frames": np.concatenate(frames)})


@pytest.mark.parametrize("seed", range(3))
def test_resampled_metric_is_that_of_a_set_with_the_frames_repeated(seed: int) -> None:
    predictions, truths = random_tables(seed, frames=12, reach=40.0)
    copies = _all(draw(_names(12)))[seed]
    assert copies.max() > 1 and copies.min() == 0
    repeated = _copied(predictions, copies), _copied(truths, copies)

    quick = nuscenes.match_range(nuscenes.find_candidates(predictions, truths), CLASSES, 0, 50)
    slow = nuscenes.score_range(nuscenes.find_candidates(*repeated), CLASSES, 0, 50)
    resampled = nuscenes.score(quick, CLASSES, copies)
    assert resampled.mean_average_precision == pytest.approx(slow.mean_average_precision, abs=1e-12)
    assert resampled.errors == pytest.approx(slow.errors, abs=1e-9)
    assert resampled.mean_average_precision != nuscenes.score(quick, CLASSES).mean_average_precision

    t4_resampled = t4.score(
        t4_matching.match_range(t4_matching.find_candidates(predictions, truths), 0, 50), CLASSES, copies
    )
    t4_slow = t4.score_range(t4_matching.find_candidates(*repeated), CLASSES, 0, 50)
    for rule in t4_matching.RULES:
        assert t4_resampled[rule].mean_ap == pytest.approx(t4_slow[rule].mean_ap, abs=1e-12)
        assert t4_resampled[rule].mean_aph == pytest.approx(t4_slow[rule].mean_aph, abs=1e-12)


@pytest.mark.parametrize("each", [1, 3, 7, 50])
def test_frames_matched_some_at_a_time_give_what_all_at_once_give(each: int) -> None:
    predictions, truths = random_tables(5, 12)
    # Scores that repeat: their order decides.
    predictions = replace(predictions, scores=np.round(predictions.scores, 2))
    copies = np.random.default_rng(0).integers(0, 3, 12)
    ours, official = [], []
    for first in range(0, 12, each):
        parts = [table.of_frames(first, first + each) for table in (predictions, truths)]
        ours.append(nuscenes.match_range(nuscenes.find_candidates(*parts), CLASSES, 0, 90))
        official.append(t4_matching.match_range(t4_matching.find_candidates(*parts, any_label=True), 0, 90))
    whole = nuscenes.match_range(nuscenes.find_candidates(predictions, truths), CLASSES, 0, 90)
    t4_whole = t4_matching.match_range(t4_matching.find_candidates(predictions, truths, any_label=True), 0, 90)
    for draws in (None, copies):
        assert repr(nuscenes.score(nuscenes.join(ours), CLASSES, draws)) == repr(nuscenes.score(whole, CLASSES, draws))
        assert repr(t4.score(t4_matching.join(official), CLASSES, draws)) == repr(t4.score(t4_whole, CLASSES, draws))
    assert t4.pass_fail(t4_matching.join(official)) == t4.pass_fail(t4_whole)
