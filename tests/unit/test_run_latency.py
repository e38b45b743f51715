"""Latency of a run: statistics by stage, and refusal of times that are none."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluator.comparison import side_by_side
from evaluator.latency import latency_csv, latency_table, run_latency
from evaluator.report.latency import in_flight_note
from shared.errors import InputError
from shared.runs import Run
from shared.sample_table import write_samples
from tests.support.workspaces import SAMPLES, add_run, make_workspace


def _run_with(folder: Path, latencies: list[dict[str, Any]]) -> Run:
    workspace = make_workspace(folder)
    add_run(workspace, "onnx", samples=len(latencies))
    run = workspace.path("runs/onnx-cpu")
    write_samples(run / "samples.jsonl", [(entry, {}) for entry in latencies])
    return Run.open(run)


def test_statistics_by_stage(tmp_path: Path) -> None:
    times = [3.0, 9.0, 4.0, 7.0, 5.0, 2.0]
    statistics = run_latency(_run_with(tmp_path, [{"model": time / 2, "total": time} for time in times]))
    assert [statistics[stage]["mean"] for stage in ("model", "total")] == pytest.approx([2.5, 5.0])
    assert statistics["total"]["std"] == pytest.approx(np.std(times, ddof=1))
    text = latency_table(statistics, "onnx-cpu").text()
    assert f"{SAMPLES} requests, 200.0 requests/s" in text and "model" in text


def test_disturbed_requests_are_marked(tmp_path: Path) -> None:
    latencies = [{"model": 50.0, "total": 60.0, "waited": waited} for waited in (0.0, 40.0, 5.0)]
    run = _run_with(tmp_path, latencies)
    statistics = run_latency(run)
    assert statistics["total"]["disturbed"] == 1
    assert "; 1 of 3 requests DISTURBED by other programs" in latency_table(statistics, "onnx-cpu").text()
    evaluation = {"headline": {}, "intervals": {}, "latency": statistics}
    assert "60.0 (disturbed)" in side_by_side({"onnx-cpu": evaluation}).text()
    assert "index,sample,model_ms,total_ms,waited_ms" in "".join(latency_csv(run))


def test_every_request_as_csv(tmp_path: Path) -> None:
    run = _run_with(tmp_path, [{"model": 1.5, "total": 3.0}, {"model": 2.0, "total": 4.25}])
    lines = list(csv.DictReader(latency_csv(run)))
    assert [line["sample"] for line in lines] == run.header.tokens
    assert [(float(line["model_ms"]), float(line["total_ms"])) for line in lines] == [(1.5, 3.0), (2.0, 4.25)]


@pytest.mark.parametrize(
    "broken", [{"model": 3.0}, {"total": float("nan"), "model": 1.0}, {"total": -1.0, "model": 1.0}, {"total": 3.0}]
)
def test_times_that_are_none_are_refused(tmp_path: Path, broken: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"latency of sample 1 is not whole|NaN is not a number of JSON"):
        run_latency(_run_with(tmp_path, [{"model": 1.0, "total": 2.0}, broken]))


def _in_flight(run: Run) -> Run:
    header = run.header.model_copy(update={"details": {"in_flight": 2}})
    (run.folder / "run.json").write_text(header.model_dump_json())
    return Run.open(run.folder)


def test_requests_that_shared_the_device_have_no_latency(tmp_path: Path) -> None:
    times = [{"model": 1.0, "total": 2.0}, {}, {}, {"model": 3.0, "total": 4.0}]
    run = _in_flight(_run_with(tmp_path, times))
    statistics = run_latency(run)
    assert statistics["total"]["samples"] == 2 and statistics["total"]["median"] == 3.0
    assert [line["index"] for line in csv.DictReader(latency_csv(run))] == ["0", "3"]


@pytest.mark.parametrize("times", [[{"model": 1.0, "total": 2.0}, {"model": 1.0}], [{}, {}]])
def test_in_flight_too_a_latency_is_whole_and_one_there_is(tmp_path: Path, times: list[dict[str, float]]) -> None:
    with pytest.raises(InputError, match=r"latency of sample 1 is not whole|no sample has a latency"):
        run_latency(_in_flight(_run_with(tmp_path, times)))


def test_a_run_of_one_at_a_time_has_every_latency(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="latency of sample 1 is not whole"):
        run_latency(_run_with(tmp_path, [{"model": 1.0, "total": 2.0}, {}]))


def test_the_report_says_of_how_many_samples_the_latencies_are(tmp_path: Path) -> None:
    run = _run_with(tmp_path, [{"model": 1.0, "total": 2.0}, {}, {}])
    said = [block.text for block in in_flight_note(_in_flight(run))]
    assert said == ["Up to 2 requests were in flight; 1 of 3 samples had the device to themselves."]
    alone = _run_with(tmp_path / "alone", [{"model": 1.0, "total": 2.0}] * 3)
    assert in_flight_note(alone) == []
